"""A worker follows aliases while it runs: what jobs run on, what is refused, and what a swap costs nobody."""

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
import skops.io
from sklearn.dummy import DummyRegressor

from headrace import Client, JobFailed
from headrace.catalog.aliases import Alias, Aliases, decode_aliases, move_alias, read_aliases
from headrace.catalog.workers import decode_loaded, decode_refused, read_loaded, read_refused
from headrace.connection.commands import execute
from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import Child, start_worker
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store
from tests.support import hostile_models
from tests.support.claim_models import running_worker
from tests.support.waiting import wait_until

#: Seconds within which what was moved is followed, on a busy machine.
SOON = 30.0
KEYS = Keys()


class Stack:
    """A worker, its Redis and its store; `client` leaves it to the worker what a job runs on."""

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

    def add(self, name: str, constant: float, *, spoilt: bool = False) -> str:
        """The next version of a model that always answers the same; returns its number."""
        folder = self.folder
        file, example = folder / f"{name}.skops", folder / f"{name}.json"
        skops.io.dump(DummyRegressor(strategy="constant", constant=constant).fit([[0.0]], [constant]), file)
        example.write_text("[[1.0], [2.0]]")
        aside = Store(folder / "aside" / f"{time.monotonic_ns()}")
        if (self.store.path / name).exists():
            shutil.copytree(self.store.path / name, aside.path / name)
        version = package(aside, file, name=name, example=example).version
        made = aside.path / name / version
        if spoilt:
            data = bytearray((made / "artifact.skops").read_bytes())
            data[len(data) // 2] ^= 1
            (made / "artifact.skops").write_bytes(data)
        (self.store.path / name).mkdir(parents=True, exist_ok=True)
        made.rename(self.store.path / name / version)
        return version

    def move(self, model: str, alias: str, version: str | None, *, share: float | None = None) -> None:
        reply = execute(self.redis, read_aliases(KEYS, model))
        now = decode_aliases(model, reply).by_name.get(alias)
        then = Alias(version=version, share=share) if version else None
        assert execute(self.redis, move_alias(KEYS, model, alias, now, then, by="test", reason=""))

    def ran_on(self, model: str, **options: Any) -> str:
        return self.client.predict(model, [7.0], timeout=SOON, **options).version

    def have(self, model: str) -> set[str]:
        """The versions the worker says it has."""
        said = decode_loaded(execute(self.redis, read_loaded(KEYS, model)), int(time.time() * 1000))
        return {version for one in said.values() for version in one.versions}

    def refuses(self, model: str) -> dict[str, str]:
        said = decode_refused(execute(self.redis, read_refused(KEYS, model)), int(time.time() * 1000))
        return {version: one.reason for version, one in said.items()}

    def processes(self) -> set[int]:
        main = self.worker.process.pid
        return set(map(int, Path(f"/proc/{main}/task/{main}/children").read_text().split()))

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
def asking(stack: Stack, model: str) -> Iterator[list[str]]:
    """Clients that ask all the while; the versions that answered, in order. Any failure fails the test."""
    answered: list[str] = []
    failed: list[BaseException] = []
    stop = threading.Event()

    def ask_on() -> None:
        try:
            with Client(stack.url, check=False) as client:
                while not stop.wait(0.005):
                    answered.append(client.predict(model, [7.0], timeout=SOON).version)
        except BaseException as error:  # noqa: BLE001  # told in the test's own thread
            failed.append(error)

    threads = [threading.Thread(target=ask_on) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield answered
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failed, failed


def test_jobs_follow_production_there_and_back_and_none_fails(stack: Stack) -> None:
    for constant in (1.0, 2.0):
        stack.add("moved", constant)
    stack.move("moved", "production", "1")
    wait_until(lambda: stack.have("moved") == {"1"})  # the newest is nobody's alias
    before = stack.processes()
    with asking(stack, "moved") as answered:
        stack.move("moved", "production", "2")
        wait_until(lambda: answered[-1:] == ["2"])
        wait_until(lambda: "2" in stack.have("moved"))
        assert stack.have("moved") == {"1", "2"}  # jobs that name the former one may still be waiting
        after = wait_until(lambda: len(now := stack.processes()) == 2 and not now & before and now)
        asked = len(answered)
        wait_until(lambda: len(answered) > asked + 20)
        assert set(answered[asked + 5 :]) == {"2"}
        assert stack.ran_on("moved", version="1") == "1"
        stack.move("moved", "production", "1")
        wait_until(lambda: set(answered[-10:]) == {"1"})
    assert stack.processes() == after  # it was in memory: there was nothing to swap


def test_a_bad_version_in_production_never_serves_and_redis_says_why(stack: Stack) -> None:
    stack.add("spoilt", 1.0)
    stack.move("spoilt", "production", "1")
    stack.add("spoilt", 2.0, spoilt=True)
    wait_until(lambda: stack.have("spoilt") == {"1"})
    stack.move("spoilt", "production", "2")
    why = wait_until(lambda: stack.refuses("spoilt").get("2"))
    assert "spoilt@2 has another digest than its manifest says" in why
    assert {stack.ran_on("spoilt") for _ in range(10)} == {"1"}
    with pytest.raises(JobFailed, match="another digest"):
        stack.ran_on("spoilt", version="2")
    stack.move("spoilt", "production", "1")
    assert stack.have("spoilt") == {"1"}


def test_jobs_may_name_any_alias_and_the_canary_takes_its_part(stack: Stack) -> None:
    for constant in (1.0, 2.0, 3.0):
        stack.add("parted", constant)
    stack.move("parted", "production", "1")
    stack.move("parted", "canary", "2", share=0.5)
    stack.move("parted", "tested", "3")
    wait_until(lambda: stack.have("parted") == {"1", "2", "3"})
    assert stack.ran_on("parted", version="tested") == "3"
    runs = {f"parted-{number}": stack.ran_on("parted", id=f"parted-{number}") for number in range(30)}
    known = Aliases("parted", {"production": Alias(version="1"), "canary": Alias(version="2", share=0.5)})
    assert runs == {job: known.resolve(None, job) for job in runs}
    with pytest.raises(JobFailed, match="has no alias 'stable'; it has canary, production, tested"):
        stack.ran_on("parted", version="stable")


def test_what_is_in_memory_serves_on_in_every_process_while_its_files_are_away(stack: Stack) -> None:
    stack.add("away", 1.0)
    wait_until(lambda: stack.have("away") == {"1"})
    shutil.rmtree(stack.store.path / "away")
    jobs = stack.client.submit_many("away", [[7.0]] * 300)
    assert {job.result(timeout=SOON).version for job in jobs} == {"1"}


@pytest.mark.parametrize(
    "options",
    ["--pool solo", "--pool threads --concurrency 2", "--autoscale 3,1 --max-tasks-per-child 5"],
)
def test_a_worker_of_any_kind_goes_over_to_what_is_added(stack: Stack, tmp_path: Path, options: str) -> None:
    name = options.strip("-").replace(" ", "-").replace(",", "-").replace("--", "")
    own = Stack(tmp_path, stack.url)  # a store of its own: the other worker does not know the model
    own.add(name, 1.0)
    with (
        running_worker(*options.split(), url=own.url, models=own.store.path, folder=tmp_path),
        asking(own, name) as answered,
    ):
        wait_until(lambda: len(answered) > 10)
        own.add(name, 2.0)
        wait_until(lambda: set(answered[-10:]) == {"2"})
    assert set(answered) == {"1", "2"}
    own.disconnect()


def test_a_swapped_worker_shares_the_memory_of_the_new_version(tmp_path: Path) -> None:
    ballast = 160 * 1024**2
    with EmbeddedRedis("--appendfsync", "no") as server:
        stack = Stack(tmp_path, server.url)
        hostile_models.add(stack.store, ballast=ballast)
        stack.start(concurrency=3)
        try:
            before = stack.processes()
            hostile_models.add(stack.store, ballast=ballast)
            wait_until(lambda: stack.have("obedient") == {"1", "2"})
            after = wait_until(lambda: len(now := stack.processes()) == 3 and not now & before and now)
            jobs = stack.client.submit_many("obedient", [hostile_models.instance()] * 200)
            assert {job.result(timeout=SOON).version for job in jobs} == {"2"}
            private = [private_bytes(pid) for pid in after]
        finally:
            stack.close()
        assert stack.worker.process.returncode == 0
        with redis.Redis.from_url(server.url) as client:
            assert client.exists(KEYS.loaded("obedient"), KEYS.refused("obedient")) == 0
    assert max(private) < ballast / 2, private


def test_what_a_worker_has_loaded_lies_in_huge_pages_when_it_forks(tmp_path: Path) -> None:
    gathered = (
        "from headrace_worker.process.fork_memory import use_huge_pages; "
        "kept = bytearray(32 << 20); print(use_huge_pages())"
    )
    if subprocess.check_output([sys.executable, "-c", gathered], timeout=60).strip() == b"0":
        pytest.skip("this system has no huge pages, or is not to")
    with EmbeddedRedis("--appendfsync", "no") as server:
        stack = Stack(tmp_path, server.url)
        hostile_models.add(stack.store)
        stack.start()
        try:
            huge = [bytes_of(pid, "AnonHugePages") for pid in [stack.worker.process.pid, *stack.processes()]]
        finally:
            stack.close()
    # A write to one that is shared splits it, and it no longer counts.
    assert max(huge) > 0


def private_bytes(pid: int) -> int:
    """What the process has for itself alone."""
    return bytes_of(pid, "Private_")


def bytes_of(pid: int, kind: str) -> int:
    """The memory of a process of one kind."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(kind))
