"""A canary gets its share of the jobs and ends when it fails; a shadow publishes nothing and is counted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
import skops.io
from sklearn.dummy import DummyRegressor

from headrace.client import Client
from headrace.errors import JobFailed
from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import start_worker
from headrace_worker.packaging.package import package
from headrace_worker.rollout.promotion import Promoter
from headrace_worker.rollout.version_stats import VersionStats
from headrace_worker.store.store import Store
from tests.support import ROOT
from tests.support.waiting import wait_until

TIMEOUT_SECONDS = 30.0
ROW = [7.0]


class Running:
    """A worker with a model of three versions: 1 and 2 predict their number, and 3 fails."""

    def __init__(self, url: str, store: Store) -> None:
        self.url, self.store = url, store
        self.server = redis.Redis.from_url(url)
        self.promoter = Promoter(self.server, Keys(), store, by="ann@here", max_bytes=1 << 30)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("canary")
    store = Store(folder / "models")
    for version in ("1", "2"):
        skops.io.dump(
            DummyRegressor(strategy="constant", constant=float(version)).fit([[0.0]], [1.0]), folder / "m.skops"
        )
        (folder / "rows.json").write_text("[[1.0], [2.0]]")
        package(store, folder / "m.skops", name="churn", example=folder / "rows.json", runtime="sklearn")
    package(store, "tests.support.canary_models:failing", name="churn", example=folder / "rows.json")
    with EmbeddedRedis() as server:
        running = Running(server.url, store)
        running.promoter.promote("churn", "1", force=True)
        worker = start_worker(
            server.url,
            store.path,
            folder,
            HEADRACE_CANARY_JOBS="20",
            HEADRACE_CANARY_SLOWER="1000",  # on a busy machine a few slow batches would end the canary
            HEADRACE_TRUST_MODULES="tests.support.canary_models",
            PYTHONPATH=str(ROOT),
        )
        try:
            yield running
        finally:
            worker.stop()
            running.server.close()


def versions(running: Running, jobs: int, *, check: bool = True) -> list[str]:
    """Submit jobs, and return the version that predicted each, or `failed`."""

    def version(job: Any) -> str:
        try:
            return str(job.result(timeout=TIMEOUT_SECONDS).version)
        except JobFailed:
            return "failed"

    with Client(running.url, check=check) as client:
        return [version(job) for job in client.submit_many("churn", [ROW] * jobs)]


def wait_for_stats(running: Running, *names: str) -> list[VersionStats]:
    """Submit jobs until versions of all these aliases have run some, and return their statistics."""

    def all_stats() -> list[VersionStats]:
        versions(running, 20)
        by_alias = {name: stats for name, _, stats in running.promoter.compare_versions("churn")}
        return [by_alias[name] for name in names] if all(by_alias[name].jobs for name in names) else []

    return list(wait_until(all_stats))


@pytest.fixture(autouse=True)
def without_canary_or_shadow(running: Running) -> Iterator[None]:
    yield
    for name in {"canary", "shadow"} & running.promoter.aliases("churn").by_name.keys():
        running.promoter.rollback("churn", alias=name)


def test_a_canary_gets_its_share_of_the_jobs(running: Running):
    running.promoter.promote("churn", "2", alias="canary", share=0.25)
    results = versions(running, 400)
    assert set(results) == {"1", "2"}
    assert 50 < results.count("2") < 150
    production, canary = wait_for_stats(running, "production", "canary")
    assert production.failed == canary.failed == 0
    running.promoter.rollback("churn", alias="canary")
    assert set(versions(running, 50)) == {"1"}


def test_a_canary_gets_its_share_of_the_jobs_of_a_plain_client(running: Running):
    running.promoter.promote("churn", "2", alias="canary", share=0.25)
    wait_for_stats(running, "canary")
    # The worker chooses the version of unchecked jobs; it reads the aliases every few seconds.
    wait_until(lambda: 50 < versions(running, 400, check=False).count("2") < 150)
    assert set(versions(running, 100, check=False)) == {"1", "2"}


def test_a_shadow_publishes_nothing_and_its_differences_are_counted(running: Running):
    running.promoter.promote("churn", "2", alias="shadow")
    assert set(versions(running, 100)) == {"1"}
    (shadow,) = wait_for_stats(running, "shadow")
    assert shadow.failed == 0
    assert shadow.compared == shadow.differing == shadow.jobs
    assert shadow.difference_sum == pytest.approx(shadow.compared * 1.0)
    assert shadow.largest_difference == pytest.approx(1.0)
    assert 0 < shadow.quantile_seconds(0.99) < 1.0


def test_a_shadow_is_compared_with_production_and_not_with_a_canary(running: Running):
    running.promoter.promote("churn", "2", alias="canary", share=0.8)
    running.promoter.promote("churn", "3", alias="shadow", force=True)
    wait_for_stats(running, "production", "canary", "shadow")
    versions(running, 200)
    production, canary, shadow = wait_for_stats(running, "production", "canary", "shadow")
    assert 0 < shadow.jobs <= production.jobs < canary.jobs


def test_a_shadow_that_fails_fails_no_job(running: Running):
    running.promoter.promote("churn", "3", alias="shadow", force=True)
    assert set(versions(running, 50)) == {"1"}
    (shadow,) = wait_for_stats(running, "shadow")
    assert shadow.failed == shadow.jobs


def test_a_canary_that_fails_is_ended_with_a_reason_in_the_history(running: Running):
    running.promoter.promote("churn", "3", alias="canary", share=0.5, force=True)
    wait_until(lambda: versions(running, 20) and "canary" not in running.promoter.aliases("churn").by_name)
    newest = running.promoter.history("churn")[0]
    assert (newest.alias, newest.former, newest.version, newest.by) == ("canary", "3", None, "headrace")
    assert "jobs failed" in newest.reason
    assert set(versions(running, 50)) == {"1"}
