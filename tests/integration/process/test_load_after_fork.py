"""Versions that must not be loaded before the fork: each pool process loads and proves its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace import Client
from headrace.errors import HeadraceError, ModelError
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import Child
from headrace_worker.models.registry import Registry
from headrace_worker.settings import WorkerSettings
from headrace_worker.store.store import Store
from headrace_worker.telemetry.health import HealthStatus, read_status
from tests.support import unforkable_models
from tests.support.claim_models import running_worker
from tests.support.processes import child_pids
from tests.support.unforkable_models import SERVING, add, read_record
from tests.support.waiting import wait_until


class Site:
    """A Redis, a store, and the record of what the model did in the worker."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url, self.store = folder, url, Store(folder / "models")
        self.record, self.health_file = folder / "record", folder / "health"

    @contextlib.contextmanager
    def running_worker(self, *options: str) -> Iterator[Child]:
        with running_worker(
            *options,
            url=self.url,
            models=self.store.path,
            folder=self.folder,
            RECORD=str(self.record),
            HEADRACE_HEALTH_FILE=str(self.health_file),
            **SERVING,
        ) as worker:
            yield worker

    def loads(self) -> set[int]:
        """Return the processes that loaded the model."""
        return {pid for (pid,) in read_record(self.record, "load")}

    def predict(self, count: int) -> set[float]:
        """Run jobs, and return their predictions, which are equal."""
        with Client(self.url, check=False) as client:
            jobs = [client.submit("threaded", [1.0]) for _ in range(count)]
            return {job.result(timeout=40).prediction for job in jobs}

    def status(self) -> HealthStatus:
        return read_status(self.health_file, 0.0)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with EmbeddedRedis("--appendfsync", "no") as server:
        yield Site(tmp_path, server.url)


def test_each_pool_process_loads_its_own_before_the_worker_is_ready_and_a_new_version_follows(site: Site) -> None:
    add(site.store, site.folder)
    with site.running_worker() as worker:
        pool, loads = child_pids(worker.process.pid), site.loads()
        assert len(pool) == 2
        assert pool <= loads
        assert site.status().ready
        assert site.predict(60) == {2.0}
        add(site.store, site.folder, factor=3.0, seconds=2.2)  # twice that is more than Celery allows by default
        after = wait_until(lambda: len(new := child_pids(worker.process.pid)) == 2 and not new & pool and new)
        wait_until(lambda: site.predict(1) == {3.0})
        assert site.predict(60) == {3.0}
        assert after <= site.loads()
        assert worker.process.pid not in site.loads()
        assert site.status().ready
    predicted = read_record(site.record, "predict")
    assert {pid for pid, _ in predicted} >= pool | after
    assert all(pid == loaded_in for pid, loaded_in in predicted)


def test_a_process_that_cannot_load_the_version_serves_none_of_its_jobs_and_the_worker_says_so(site: Site) -> None:
    add(site.store, site.folder, trouble="refuse")
    with site.running_worker() as worker:
        pool = child_pids(worker.process.pid)
        assert site.predict(40) == {2.0}
        (server,) = pool & site.loads()
        assert {pid for pid, _ in read_record(site.record, "predict")} & pool == {server}
        wait_until(lambda: not site.status().ready, 15)
        assert "1 of 2 pool processes could not load" in site.status().reason
        assert "no memory left on the GPU" in worker.log.read_text()
        assert child_pids(worker.process.pid) == pool


@pytest.mark.long
def test_processes_that_die_while_they_load_are_not_replaced_without_end(site: Site) -> None:
    add(site.store, site.folder)
    with site.running_worker() as worker:
        before = child_pids(worker.process.pid)
        add(site.store, site.folder, trouble="die")
        wait_until(lambda: "could not load" in site.status().reason)
        pool = wait_until(lambda: len(new := child_pids(worker.process.pid)) == 2 and not new & before and new)
        deaths = len(read_record(site.record, "die"))
        assert 3 <= deaths <= 9  # three of each number, and three numbers while the pool is replaced
        wait_until(lambda: "2 of 2 pool processes" in site.status().reason)
        assert child_pids(worker.process.pid) == pool
        assert "ended while they loaded" in worker.log.read_text()


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_a_pool_without_forks_loads_it_in_the_only_process(site: Site, pool: str) -> None:
    add(site.store, site.folder)
    with site.running_worker("--pool", pool) as worker:
        assert worker.process.pid in site.loads()
        assert site.predict(20) == {2.0}
        add(site.store, site.folder, factor=3.0)
        wait_until(lambda: site.predict(1) == {3.0})
    assert {pid for pid, _ in read_record(site.record, "predict")} >= {worker.process.pid}


@pytest.mark.long
def test_a_worker_that_is_told_to_stop_while_its_processes_load_stops(site: Site) -> None:
    add(site.store, site.folder)
    with site.running_worker() as worker:
        loads = len(site.loads())
        add(site.store, site.folder, factor=3.0)
        wait_until(lambda: len(site.loads()) > loads)  # proven, and about to be loaded in new processes
        worker.process.terminate()
        assert worker.process.wait(20) == 0


def test_a_model_says_itself_that_it_must_be_loaded_after_the_fork(site: Site) -> None:
    manifest = add(site.store, site.folder, factory="SelfDeclared", load_after_fork=False)
    assert manifest.limits.load_after_fork
    registry = Registry(site.store, _settings(), prove=True, defer=True)
    registry.preload()
    (deferred,) = registry.deferred()
    assert deferred.manifest.title == "threaded@1"
    with pytest.raises(ModelError, match="loaded after the fork only"):
        registry.get("threaded").predict("predict", [[1.0]])
    assert registry.load_deferred() == {}
    assert registry.get("threaded").predict("predict", [[1.0]]) == [2.0]


def test_a_model_that_says_nothing_and_answers_in_a_thread_is_not_packaged(site: Site) -> None:
    with pytest.raises(HeadraceError, match=r"fails on its own example: .* before the fork .* --load-after-fork"):
        add(site.store, site.folder, load_after_fork=False)


def _settings() -> WorkerSettings:
    return WorkerSettings(trust_modules=unforkable_models.__name__)
