"""Workers with different versions share a queue, and models share a worker, without failing a job."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from headrace import Client, JobFailed
from headrace.catalog.workers import decode_loaded, read_loaded
from headrace.connection.commands import execute
from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.claim_models import SLEEP, add_model, running_worker
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with EmbeddedRedis("--appendfsync", "no") as server:
        yield server.url


def published_versions(url: str, model: str) -> dict[str, tuple[str, ...]]:
    """Return the versions of a model that each worker has loaded."""
    with redis.Redis.from_url(url) as client:
        workers = decode_loaded(model, execute(client, read_loaded(Keys(), model)), int(time.time() * 1000))
    return {worker.partition("@")[0]: status.versions for worker, status in workers.items()}


def test_jobs_run_on_the_worker_that_has_their_version_and_fail_if_none_has(url: str, tmp_path: Path) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    new.mkdir()
    for _ in range(2):
        models = add_model(new)
    shutil.copytree(models, old / "models")
    damaged = (
        old / "models" / "doubling" / "2" / "artifact.joblib"
    )  # stands for a library that the old worker lacks
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    with (
        Client(url, check=False) as client,
        running_worker("-c", "1", url=url, models=old / "models", folder=old, name="old"),
    ):
        with running_worker("-c", "1", url=url, models=models, folder=new, name="new"):
            wait_until(lambda: published_versions(url, "doubling") == {"new": ("2",), "old": ("1",)})
            jobs = [client.submit("doubling", [1, 0, 0], version="2") for _ in range(40)]
            jobs += [client.submit("doubling", [1, SLEEP, 0.01], version="2") for _ in range(20)]
            assert {job.result(timeout=60).version for job in jobs} == {"2"}
            assert client.dead_letters.count().letters == 0
        wait_until(lambda: list(published_versions(url, "doubling")) == ["old"])
        with pytest.raises(JobFailed, match="doubling@2 has another digest"):
            client.predict("doubling", [1, 0, 0], version="2", timeout=20)
        assert client.predict("doubling", [1, 0, 0], timeout=20).version == "1"


def test_a_model_occupies_at_most_max_claims_processes_and_other_models_go_on(url: str, tmp_path: Path) -> None:
    add_model(tmp_path, name="slow", max_claims=1)
    models = add_model(tmp_path, name="quick")
    with running_worker("-c", "2", url=url, models=models, folder=tmp_path), Client(url, check=False) as client:
        assert client.predict("slow", [1, 0, 0], timeout=20).prediction == 2
        first = client.submit("slow", [1, SLEEP, 2.0])
        wait_until(lambda: [depth.leased for depth in client.queues() if depth.model == "slow"] == [1])
        second = client.submit("slow", [1, 0, 0])
        for _ in range(5):
            assert client.predict("quick", [1, 0, 0], timeout=20).prediction == 2
        (slow,) = (depth for depth in client.queues() if depth.model == "slow")
        assert (slow.leased, slow.by_priority[0]) == (1, 1)
        assert second.result(timeout=20).prediction == 2
        assert first.status() == "success"
