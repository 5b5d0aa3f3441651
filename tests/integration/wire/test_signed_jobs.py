"""A worker that requires signatures runs signed jobs only."""

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
from headrace.wire.keys import Keys
from headrace.wire.message import Job, encode_message
from headrace.wire.queues import queue_name
from headrace.wire.signing import JobKeys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import start_worker
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store
from tests.support.waiting import wait_until

TIMEOUT_SECONDS = 30.0
OLD, NEW = "2026a:" + "a" * 44, "2026b:" + "b" * 44


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with the model churn, which always predicts 1."""
    folder = tmp_path_factory.mktemp("signed")
    skops.io.dump(DummyRegressor(strategy="constant", constant=1.0).fit([[0.0]], [1.0]), folder / "m.skops")
    (folder / "rows.json").write_text("[[1.0]]")
    store = Store(folder / "models")
    package(store, folder / "m.skops", name="churn", example=folder / "rows.json", runtime="sklearn")
    return store


@pytest.fixture(scope="module")
def url(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("worker")
    keys = {"HEADRACE_JOB_KEYS": f"{OLD},{NEW}", "HEADRACE_REQUIRE_SIGNED_JOBS": "true"}
    with EmbeddedRedis() as server:
        worker = start_worker(server.url, store.path, folder, **keys)
        try:
            yield server.url
        finally:
            worker.stop()
        assert "a" * 44 not in (folder / "worker.log").read_text()


def signing_client(url: str, keys: str) -> Client:
    return Client(settings=Settings(redis_url=url, job_keys=keys))


@pytest.mark.parametrize("keys", [OLD, NEW, f"{NEW},{OLD}"], ids=["old", "new", "both"])
def test_signed_jobs_run_during_a_change_of_keys(url: str, keys: str):
    with signing_client(url, keys) as client:
        assert client.predict("churn", [7.0], timeout=TIMEOUT_SECONDS).prediction == 1.0
        jobs = client.submit_many("churn", [[7.0]] * 20, expires=60)
        assert [job.result(timeout=TIMEOUT_SECONDS).prediction for job in jobs] == [1.0] * 20


@pytest.mark.parametrize("keys", ["", "2026a:" + "c" * 44], ids=["none", "another's"])
def test_other_jobs_fail_and_their_dead_letters_have_the_reason(url: str, keys: str):
    with signing_client(url, keys) as client:
        with pytest.raises(JobFailed, match=r"signed|signature") as failed:
            client.predict("churn", [7.0], timeout=TIMEOUT_SECONDS)
        assert (failed.value.reason, failed.value.error) == ("bad input", "NotTrusted")
        letter = client.dead_letters.show(failed.value.job)
        assert (letter.model, letter.error) == ("churn", "NotTrusted")


def test_a_job_that_was_changed_in_the_queue_never_runs(url: str):
    keys = JobKeys.parse(OLD)
    message = encode_message(Job(id="changed", model="churn", instances=[[7.0]]), keys)
    parts = json.loads(message)
    parts["headers"]["id"] = "another"
    with redis.Redis.from_url(url) as server, signing_client(url, OLD) as client:
        server.lpush(queue_name("churn"), json.dumps(parts))
        with pytest.raises(JobFailed, match="were changed"):
            client.job("another").result(timeout=TIMEOUT_SECONDS)


def test_a_copy_of_a_job_does_not_run_again_once_its_outcome_is_forgotten(store: Store, tmp_path: Path) -> None:
    keys = {"HEADRACE_JOB_KEYS": OLD, "HEADRACE_REQUIRE_SIGNED_JOBS": "true", "HEADRACE_RESULT_TTL": "3"}
    with (
        EmbeddedRedis() as server,
        redis.Redis.from_url(server.url) as db,
        signing_client(server.url, OLD) as client,
    ):
        worker = start_worker(server.url, store.path, tmp_path, **keys)
        try:
            signed = encode_message(Job(id="copied", model="churn", instances=[[7.0]]), JobKeys.parse(OLD))
            db.lpush(queue_name("churn"), signed)
            assert client.job("copied").result(timeout=TIMEOUT_SECONDS).prediction == 1.0
            wait_until(lambda: not db.exists(Keys().result("copied")))
            db.lpush(queue_name("churn"), signed)
            with pytest.raises(JobFailed, match="HEADRACE_MAX_SIGNATURE_AGE is 3"):
                client.job("copied").result(timeout=TIMEOUT_SECONDS)
        finally:
            worker.stop()


def test_the_age_of_signatures_must_not_exceed_the_time_for_which_outcomes_are_kept(
    store: Store, tmp_path: Path
) -> None:
    keys = {"HEADRACE_JOB_KEYS": OLD, "HEADRACE_RESULT_TTL": "60", "HEADRACE_MAX_SIGNATURE_AGE": "61"}
    with EmbeddedRedis() as server, pytest.raises(HeadraceError, match="HEADRACE_MAX_SIGNATURE_AGE is 61, above"):
        start_worker(server.url, store.path, tmp_path, **keys)


def test_a_worker_that_requires_signatures_needs_keys(tmp_path: Path):
    (tmp_path / "models").mkdir()
    with EmbeddedRedis() as server, pytest.raises(HeadraceError, match="needs HEADRACE_JOB_KEYS"):
        start_worker(server.url, tmp_path / "models", tmp_path, HEADRACE_REQUIRE_SIGNED_JOBS="true")
