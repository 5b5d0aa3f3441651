"""A worker follows aliases while it runs: versions are loaded, served and refused, and no job fails meanwhile."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from headrace import Client, JobFailed
from headrace.catalog.aliases import Alias, Aliases, decode_aliases, move_alias, read_aliases
from headrace.catalog.workers import decode_loaded, decode_refused, read_loaded, read_refused
from headrace.connection.commands import execute
from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import Child, start_worker
from headrace_worker.store.store import Store
from tests.support import hostile_models
from tests.support.claim_models import running_worker
from tests.support.constant_models import add_constant
from tests.support.processes import child_pids, memory_bytes, private_bytes
from tests.support.waiting import wait_until

#: Seconds in which a worker follows an alias, on a busy machine.
FOLLOW_SECONDS = 30.0
KEYS = Keys()


class Stack:
    """A worker, its Redis and its store. Its client leaves the choice of the version to the worker."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self.folder, self.url = folder, redis_url
        self.store = Store(folder / "models")
        self.redis = redis.Redis.from_url(redis_url)
        self.client = Client(redis_url, check=False)
        self.worker: Child

    def start(self, *, concurrency: int = 2) -> None:
        self.worker = start_worker(
            self.url, self.store.path, self.folder, concurrency=concurrency, **hostile_models.SERVING
        )

    def add(self, name: str, constant: float, *, corrupt: bool = False) -> str:
        """Add the next version of a constant model, corrupt before the worker can see it. Return the version."""
        other_store = Store(self.folder / "other" / f"{time.monotonic_ns()}")
        if (self.store.path / name).exists():
            shutil.copytree(self.store.path / name, other_store.path / name)
        version = add_constant(other_store, self.folder, name, constant)
        packaged = other_store.path / name / version
        if corrupt:
            data = bytearray((packaged / "artifact.skops").read_bytes())
            data[len(data) // 2] ^= 1
            (packaged / "artifact.skops").write_bytes(data)
        (self.store.path / name).mkdir(parents=True, exist_ok=True)
        packaged.rename(self.store.path / name / version)
        return version

    def move(self, model: str, alias: str, version: str | None, *, share: float | None = None) -> None:
        reply = execute(self.redis, read_aliases(KEYS, model))
        present = decode_aliases(model, reply).by_name.get(alias)
        target = Alias(version=version, share=share) if version else None
        assert execute(self.redis, move_alias(KEYS, model, alias, present, target, by="test", reason=""))

    def version_run(self, model: str, **options: Any) -> str:
        """Run a job and return the version that ran it."""
        return self.client.predict(model, [7.0], timeout=FOLLOW_SECONDS, **options).version

    def loaded(self, model: str) -> set[str]:
        """Return the versions that the worker has published as loaded."""
        workers = decode_loaded(model, execute(self.redis, read_loaded(KEYS, model)), int(time.time() * 1000))
        return {version for status in workers.values() for version in status.versions}

    def refused(self, model: str) -> dict[str, str]:
        """Return the versions that the worker has published as refused, with the reasons."""
        errors = decode_refused(model, execute(self.redis, read_refused(KEYS, model)), int(time.time() * 1000))
        return {version: error.reason for version, error in errors.items()}

    def pool(self) -> set[int]:
        return child_pids(self.worker.process.pid)

    def close(self) -> None:
        self.worker.stop()
        self.disconnect()

    def disconnect(self) -> None:
        self.client.close()
        self.redis.close()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with EmbeddedRedis("--appendfsync", "no") as server:
        stack = Stack(tmp_path_factory.mktemp("stack"), server.url)
        stack.start()
        try:
            yield stack
        finally:
            stack.close()


@contextlib.contextmanager
def clients_predicting(stack: Stack, model: str) -> Iterator[list[str]]:
    """Run clients that predict all the time. Yield the versions that ran, in order. A failure fails the test."""
    versions: list[str] = []
    errors: list[BaseException] = []
    stop = threading.Event()

    def predict_repeatedly() -> None:
        try:
            with Client(stack.url, check=False) as client:
                while not stop.wait(0.005):
                    versions.append(client.predict(model, [7.0], timeout=FOLLOW_SECONDS).version)
        except BaseException as error:  # noqa: BLE001  # raised again in the test's thread
            errors.append(error)

    threads = [threading.Thread(target=predict_repeatedly) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield versions
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not errors, errors


def test_jobs_follow_production_forward_and_back_and_none_fails(stack: Stack) -> None:
    for constant in (1.0, 2.0):
        stack.add("moved", constant)
    stack.move("moved", "production", "1")
    wait_until(lambda: stack.loaded("moved") == {"1"})  # no alias names the newest version
    before = stack.pool()
    with clients_predicting(stack, "moved") as versions:
        stack.move("moved", "production", "2")
        wait_until(lambda: versions[-1:] == ["2"])
        wait_until(lambda: "2" in stack.loaded("moved"))
        assert stack.loaded("moved") == {"1", "2"}  # waiting jobs may still name the former version
        after = wait_until(lambda: len(pool := stack.pool()) == 2 and not pool & before and pool)
        count = len(versions)
        wait_until(lambda: len(versions) > count + 20)
        assert set(versions[count + 5 :]) == {"2"}
        assert stack.version_run("moved", version="1") == "1"
        stack.move("moved", "production", "1")
        wait_until(lambda: set(versions[-10:]) == {"1"})
    assert stack.pool() == after  # the version was in memory, so no process was replaced


def test_a_corrupt_version_in_production_never_serves_and_its_reason_is_published(stack: Stack) -> None:
    stack.add("corrupt", 1.0)
    stack.move("corrupt", "production", "1")
    stack.add("corrupt", 2.0, corrupt=True)
    wait_until(lambda: stack.loaded("corrupt") == {"1"})
    stack.move("corrupt", "production", "2")
    reason = wait_until(lambda: stack.refused("corrupt").get("2"))
    assert "corrupt@2 has another digest than its manifest says" in reason
    assert {stack.version_run("corrupt") for _ in range(10)} == {"1"}
    with pytest.raises(JobFailed, match="another digest"):
        stack.version_run("corrupt", version="2")
    stack.move("corrupt", "production", "1")
    assert stack.loaded("corrupt") == {"1"}


def test_jobs_may_name_any_alias_and_the_canary_runs_its_share(stack: Stack) -> None:
    for constant in (1.0, 2.0, 3.0):
        stack.add("shared", constant)
    stack.move("shared", "production", "1")
    stack.move("shared", "canary", "2", share=0.5)
    stack.move("shared", "tested", "3")
    wait_until(lambda: stack.loaded("shared") == {"1", "2", "3"})

    def find_tested() -> str | None:
        try:
            return stack.version_run("shared", version="tested")
        except JobFailed:  # the worker has not read the alias yet
            return None

    wait_until(lambda: find_tested() == "3")
    runs = {f"shared-{number}": stack.version_run("shared", id=f"shared-{number}") for number in range(30)}
    aliases = Aliases("shared", {"production": Alias(version="1"), "canary": Alias(version="2", share=0.5)})
    assert runs == {job: aliases.resolve(None, job) for job in runs}
    with pytest.raises(JobFailed, match="has no alias 'stable'; it has canary, production, tested"):
        stack.version_run("shared", version="stable")


def test_a_loaded_version_goes_on_serving_in_every_process_while_its_files_are_missing(stack: Stack) -> None:
    stack.add("deleted", 1.0)
    wait_until(lambda: stack.loaded("deleted") == {"1"})
    shutil.rmtree(stack.store.path / "deleted")
    jobs = stack.client.submit_many("deleted", [[7.0]] * 300)
    assert {job.result(timeout=FOLLOW_SECONDS).version for job in jobs} == {"1"}


@pytest.mark.parametrize(
    "options",
    ["--pool solo", "--pool threads --concurrency 2", "--autoscale 3,1 --max-tasks-per-child 5"],
)
def test_workers_with_any_pool_switch_to_an_added_version(stack: Stack, tmp_path: Path, options: str) -> None:
    name = options.strip("-").replace(" ", "-").replace(",", "-").replace("--", "")
    own = Stack(tmp_path, stack.url)  # with a store of its own: the other worker does not serve the model
    own.add(name, 1.0)
    with (
        running_worker(*options.split(), url=own.url, models=own.store.path, folder=tmp_path),
        clients_predicting(own, name) as versions,
    ):
        wait_until(lambda: len(versions) > 10)
        own.add(name, 2.0)
        wait_until(lambda: set(versions[-10:]) == {"2"})
    assert set(versions) == {"1", "2"}
    own.disconnect()


def test_replaced_processes_share_the_memory_of_the_new_version(tmp_path: Path) -> None:
    ballast = 160 * 1024**2
    with EmbeddedRedis("--appendfsync", "no") as server:
        stack = Stack(tmp_path, server.url)
        hostile_models.add(stack.store, ballast=ballast)
        stack.start(concurrency=3)
        try:
            before = stack.pool()
            hostile_models.add(stack.store, ballast=ballast)
            wait_until(lambda: stack.loaded("obedient") == {"1", "2"})
            after = wait_until(lambda: len(pool := stack.pool()) == 3 and not pool & before and pool)
            jobs = stack.client.submit_many("obedient", [hostile_models.instance()] * 200)
            assert {job.result(timeout=FOLLOW_SECONDS).version for job in jobs} == {"2"}
            private = [private_bytes(pid) for pid in after]
        finally:
            stack.close()
        assert stack.worker.process.returncode == 0
        with redis.Redis.from_url(server.url) as client:
            assert client.exists(KEYS.loaded("obedient"), KEYS.refused("obedient")) == 0
    assert max(private) < ballast / 2, private


def test_loaded_models_are_in_huge_pages_when_a_worker_forks(tmp_path: Path) -> None:
    script = (
        "from headrace_worker.process.fork_memory import use_huge_pages; "
        "data = bytearray(32 << 20); print(use_huge_pages())"
    )
    if subprocess.check_output([sys.executable, "-c", script], timeout=60).strip() == b"0":
        pytest.skip("this system has no huge pages, or they are disabled")
    with EmbeddedRedis("--appendfsync", "no") as server:
        stack = Stack(tmp_path, server.url)
        hostile_models.add(stack.store)
        stack.start()
        try:
            huge = [memory_bytes(pid, "AnonHugePages") for pid in [stack.worker.process.pid, *stack.pool()]]
        finally:
            stack.close()
    # A write to a shared huge page splits it, and it is no longer counted.
    assert max(huge) > 0
