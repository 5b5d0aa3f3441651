"""A worker that wants signatures runs what its producers signed, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import skops.io
from sklearn.dummy import DummyRegressor

from headrace.client import Client
from headrace.errors import HeadraceError, JobFailed
from headrace.settings import Settings
from headrace.wire.keys import queue_name
from headrace.wire.message import Job, encode_message
from headrace.wire.signing import JobKeys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import start_worker
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store

SOON = 30.0
OLD, NEW = "2026a:" + "a" * 44, "2026b:" + "b" * 44


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("signed")
    skops.io.dump(DummyRegressor(strategy="constant", constant=1.0).fit([[0.0]], [1.0]), folder / "m.skops")
    (folder / "rows.json").write_text("[[1.0]]")
    store = Store(folder / "models")
    package(store, folder / "m.skops", name="churn", example=folder / "rows.json", runtime="sklearn")
    keys = {"HEADRACE_JOB_KEYS": f"{OLD},{NEW}", "HEADRACE_REQUIRE_SIGNED_JOBS": "true"}
    with EmbeddedRedis() as server:
        worker = start_worker(server.url, store.path, folder, **keys)
        try:
            yield server.url
        finally:
            worker.stop()
        assert "a" * 44 not in (folder / "worker.log").read_text()


def client(url: str, keys: str) -> Client:
    return Client(settings=Settings(redis_url=url, job_keys=keys))


@pytest.mark.parametrize("keys", [OLD, NEW, f"{NEW},{OLD}"], ids=["old", "new", "both"])
def test_signed_jobs_run_during_a_change_of_keys(url: str, keys: str):
    with client(url, keys) as one:
        assert one.predict("churn", [7.0], timeout=SOON).prediction == 1.0
        jobs = one.submit_many("churn", [[7.0]] * 20, expires=60)
        assert [job.result(timeout=SOON).prediction for job in jobs] == [1.0] * 20


@pytest.mark.parametrize("keys", ["", "2026a:" + "c" * 44], ids=["none", "another's"])
def test_other_jobs_fail_and_are_dead_letters_that_say_why(url: str, keys: str):
    with client(url, keys) as one:
        with pytest.raises(JobFailed, match=r"signed|signature") as failed:
            one.predict("churn", [7.0], timeout=SOON)
        assert (failed.value.reason, failed.value.error) == ("bad input", "NotTrusted")
        letter = one.dead_letters.show(failed.value.job)
        assert (letter.model, letter.error) == ("churn", "NotTrusted")


def test_a_job_changed_on_its_way_never_runs(url: str):
    keys = JobKeys.parse(OLD)
    message = encode_message(Job(id="changed", model="churn", instances=[[7.0]]), keys)
    parts = json.loads(message)
    parts["headers"]["id"] = "another"
    with redis.Redis.from_url(url) as server, client(url, OLD) as one:
        server.lpush(queue_name("churn"), json.dumps(parts))
        with pytest.raises(JobFailed, match="were changed"):
            one.job("another").result(timeout=SOON)


def test_a_worker_that_wants_signatures_and_has_no_keys_says_so(tmp_path: Path):
    (tmp_path / "models").mkdir()
    with EmbeddedRedis() as server, pytest.raises(HeadraceError, match="needs HEADRACE_JOB_KEYS"):
        start_worker(server.url, tmp_path / "models", tmp_path, HEADRACE_REQUIRE_SIGNED_JOBS="true")
