"""The environment of a scenario: a Redis, a proxy in front of it, workers, a producer under load, and a witness.

All of them are real processes. They end with the `with` block, whatever happens.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import redis

from headrace_worker.local.embedded_redis import EmbeddedRedis, find_redis
from headrace_worker.local.stack import Child
from tests.chaos import evidence, ledger, model, producer, verdict
from tests.chaos.disk import disk
from tests.chaos.jobs import Job, id_of
from tests.chaos.proxy import Proxy
from tests.chaos.sentinels import Sentinels
from tests.chaos.systems import System
from tests.chaos.verdict import Run, Verdict
from tests.chaos.witness import RESULT, Witness
from tests.chaos.workers import ROOT, SEARCHED, Nursery, Worker, wait_until

#: Seconds in which a worker is ready, and in which all jobs have ended when nothing is done to them any more.
_READY, _SETTLES = 60.0, {"headrace": 60.0, "celery": 30.0}
#: Numbers of the jobs of a producer, and where those begin that scenarios submit themselves.
_LOAD_JOBS, _OWN_JOBS = 1_000_000, 10_000_000


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """The environment that a scenario needs."""

    #: Seconds a lease lasts.
    lease: float = 2.0
    #: Whether the load has jobs of every kind; plain ones only otherwise.
    mixed: bool = True
    #: Bytes of a disk of its own, for Redis, and for what models write; 0 is the machine's.
    disk: int = 0
    scratch: int = 0
    #: A replica, and Sentinels.
    sentinels: bool = False
    #: Limits of the models, as in their manifest.
    limits: dict[str, Any] = msgspec.field(default_factory=dict)


class Arena:
    """A context manager. Redis has every write on disk before it is confirmed, in `folder`/redis."""

    def __init__(
        self, system: System, nursery: Nursery, folder: Path, ground: Ground, *, times: int, seed: int
    ) -> None:
        self.system, self.nursery, self.folder, self.ground = system, nursery, folder, ground
        self.lease, self.times = ground.lease, times
        self.chance = random.Random(seed)
        self.workers: list[Worker] = []
        self.kills: list[evidence.Kill] = []
        #: Moments (monotonic) when Redis was back.
        self.redis_returns: list[float] = []
        self.notes: list[str] = []
        #: What a scenario finds broken beside the master check.
        self.broken: list[str] = []
        #: Jobs nothing was promised of but that this Redis has them.
        self.may_lose: frozenset[str] = frozenset()
        #: Seconds all jobs may take to end when the scenario is over.
        self.settle_seconds = _SETTLES[system.name]
        self.runs_file = folder / "runs"
        #: Where the append-only file lies, and what models may fill.
        self.redis_folder, self.scratch = folder / "redis", folder / "scratch"
        self._numbers = iter(range(_OWN_JOBS, 2 * _OWN_JOBS))
        self._loads = iter(range(10))
        self._names = iter(range(1, 100_000))
        self._stack = contextlib.ExitStack()
        options = ["--dir", str(self.redis_folder), "--auto-aof-rewrite-percentage", "0", *_debugging()]
        self.redis = EmbeddedRedis(*options)
        self.sentinels = Sentinels(self.redis, folder / "replica")

    @property
    def url(self) -> str:
        """The URL of Redis for workers and producers."""
        return self.sentinels.url if self.ground.sentinels else self.redis.url

    # --- actions of a scenario ------------------------------------------------------------------------

    def start_workers(self, count: int, *, through_proxy: bool = False, **environ: str) -> list[Worker]:
        """Start workers and wait until they are ready; more settings for them in `environ`."""
        url = self.proxy.url if through_proxy else self.url
        started = [self.start_worker(url, **environ) for _ in range(count)]
        for worker in started:
            wait_until(lambda worker=worker: worker.is_ready or self._is_dead(worker), _READY, worker.name)
        return started

    def start_worker(self, url: str | None = None, include: str = "", **environ: str) -> Worker:
        """Start one, and do not wait. `include` is a module it imports."""
        name = f"w{next(self._names)}"
        log, ready = self.folder / f"{name}.log", self.folder / f"{name}.ready"
        settings = self.system.environ(url or self.url, self.models, ready, self.lease)
        argv = self.system.argv(name) + (["--include", include] if include else [])
        pid = self.nursery.start(argv, self._environ(settings | environ), log)
        worker = Worker(name, pid, log, ready)
        self.workers.append(worker)
        return worker

    def start_apart(self, **environ: str) -> Worker:
        """Start a worker as a program of its own, by `headrace worker`, and wait until it is ready."""
        name = f"w{next(self._names)}"
        log, ready = self.folder / f"{name}.log", self.folder / f"{name}.ready"
        command = ["headrace.cli", "worker", "--concurrency", "2", "--hostname", f"{name}@chaos"]
        settings = self.system.environ(self.url, self.models, ready, self.lease)
        child = Child(name, command, self._environ(settings | environ), log)
        self._stack.callback(child.process.wait)
        worker = Worker(name, child.process.pid, log, ready)
        self.workers.append(worker)
        wait_until(lambda: worker.is_ready or self._is_dead(worker), _READY, worker.name)
        return worker

    def _environ(self, settings: dict[str, str]) -> dict[str, str]:
        ours = {"PYTHONPATH": SEARCHED, model.RUNS: str(self.runs_file), model.SCRATCH: str(self.scratch)}
        return ours | settings

    def _is_dead(self, worker: Worker) -> bool:
        if worker.lives:
            return False
        raise RuntimeError(f"worker {worker.name} ended: {worker.log.read_text()[-2000:]}")

    @property
    def ready(self) -> list[Worker]:
        """The workers that serve."""
        return [worker for worker in self.workers if worker.is_ready]

    def kill(self, worker: Worker) -> None:
        """SIGKILL a worker's processes, and note what it held."""
        worker.kill()
        self.record_kill(self.held(worker))
        self.workers.remove(worker)

    def record_kill(self, held: frozenset[str]) -> None:
        """Record that the process which holds these jobs was harmed just now."""
        self.kills.append(evidence.Kill(time.monotonic(), held))

    def held(self, worker: Worker) -> frozenset[str]:
        """Return the jobs without an outcome that a worker has claimed.

        If the system does not record claims, these are the jobs that the worker has started.
        """
        frames = self.system.held(self.server, worker)
        jobs = {match[1].decode() for frame in frames if (match := evidence.ID.search(frame))}
        if self.system.name != "headrace":
            jobs = {run.job for run in self.runs() if run.pid in worker.pool}
        return frozenset(job for job in jobs if job not in self.witness.published)

    @contextlib.contextmanager
    def load(
        self, rate: float = 80, longest: float = 0.03, *, through_proxy: bool = False, **more: Any
    ) -> Iterator[None]:
        """Submit `rate` jobs per second while the block runs; each takes up to `longest` seconds.

        `more` is as in producer.Order. Two loads may run at once.
        """
        number = next(self._loads)
        path = self.folder / f"producer-{number}.ledger"
        order = producer.Order(
            system=self.system.name,
            url=self.proxy.url if through_proxy else self.url,
            ledger=str(path),
            first=1 + number * _LOAD_JOBS,
            rate=rate,
            longest=longest,
            mixed=self.ground.mixed,
            seed=self.chance.randrange(2**31),
            **more,
        )
        command = [sys.executable, "-m", "tests.chaos.producer", msgspec.json.encode(order).decode()]
        with (self.folder / "producer.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": SEARCHED},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self.wait(lambda: path.exists() or process.poll() is not None, "a first job")
            yield
            process.terminate()
            if not self.can_wait(lambda: process.poll() is not None, producer.PATIENCE + 15):
                self.notes.append("the producer hung")
                self.expect(False, "the producer did not end")
                return
        finally:
            process.kill()
            process.wait()
        if process.returncode != 0:
            raise RuntimeError(f"the producer failed: {(self.folder / 'producer.log').read_text()[-2000:]}")

    def submit(self, jobs: Sequence[Job], **more: Any) -> bool:
        """Submit jobs from here, with the same ledger; whether they were confirmed."""
        return self.producer.submit(jobs, **more)

    def jobs(self, count: int, **more: Any) -> list[Job]:
        """New jobs of one's own."""
        return [Job(number=next(self._numbers), **more) for _ in range(count)]

    def wait(self, condition: Any, description: str, seconds: float = 30.0) -> Any:
        """Wait until the condition holds, and return its value. Raises TimeoutError."""
        return wait_until(condition, seconds, description)

    def can_wait(self, condition: Any, seconds: float) -> bool:
        """Wait until the condition is true; whether it was in that time."""
        try:
            return bool(wait_until(condition, seconds, "a condition"))
        except TimeoutError:
            return False

    def expect(self, holds: bool, description: str) -> None:
        """A promise of this scenario alone; where it does not hold, the scenario fails with these words."""
        if not holds:
            self.broken.append(description)

    def runs(self) -> list[Run]:
        """Every run the models wrote down."""
        if not self.runs_file.exists():
            return []
        whole, _, _ = self.runs_file.read_text().rpartition("\n")
        runs = []
        for line in whole.splitlines():
            pid, started, *rows = line.split()
            runs += [
                Run(int(pid), float(started), job) for job in dict.fromkeys(id_of(float(row)) for row in rows)
            ]
        return [run for run in runs if run.job != id_of(0)]  # the example, which proves the model

    @property
    def submits_raised(self) -> int:
        """The number of submits that raised."""
        return sum(ledger.read(self.folder).raised.values())

    def outcome(self, job: str) -> dict[str, Any] | None:
        """A job's outcome as stored."""
        raw = self.server.get(RESULT + job)
        return msgspec.json.decode(raw) if isinstance(raw, bytes) else None

    def last_words(self) -> str:
        """The end of every log, for when a scenario fails."""
        logs = sorted(self.folder.glob("*.log"), key=lambda log: log.stat().st_mtime)
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-1500:]}" for log in logs[-6:])

    # --- end of a scenario ---------------------------------------------------------------------------------

    def settle(self) -> None:
        """Wait until nothing waits, and nothing more ends."""
        evidence.settle(self)

    def verdict(self) -> Verdict:
        """Let all end, stop the workers, and judge."""
        self.settle()
        self.end_workers()
        judged = verdict.judge(evidence.collect(self))
        if judged.lost and self.may_lose:
            self.notes.append(f"{judged.lost} lost that were not durable")
        return msgspec.structs.replace(judged, broken=[*judged.broken, *self.broken])

    def end_workers(self) -> None:
        """Stop all, at once, in the time it takes one."""
        for worker in self.workers:
            worker.signal(signal.SIGTERM)
        for worker in self.workers:
            worker.end(15)
        self.workers.clear()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            for path, size in ((self.redis_folder, self.ground.disk), (self.scratch, self.ground.scratch)):
                path.mkdir()
                stack.enter_context(disk(path, size))
            stack.enter_context(self.redis)
            if self.ground.sentinels:
                (self.folder / "replica").mkdir()
                stack.enter_context(self.sentinels)
            self.server = stack.enter_context(redis.Redis.from_url(self.redis.url, client_name="chaos"))
            self.proxy = stack.enter_context(Proxy(self.redis.port))
            self.witness = stack.enter_context(
                Witness(redis.Redis.from_url(self.redis.url, client_name="chaos-witness"))
            )
            self.models = model.add_models(self.folder, **self.ground.limits)
            self.producer = producer.Producer(
                producer.link(self.system.name, self.url), self.folder / "arena.ledger"
            )
            stack.callback(self.producer.close)
            stack.callback(self._kill_workers)
            self._stack = stack.pop_all()
        return self

    def _kill_workers(self) -> None:
        for worker in self.workers:
            with contextlib.suppress(TimeoutError):
                worker.kill()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()


def redis_version() -> str:
    """The version of the redis-server that scenarios are played with."""
    output = subprocess.run([find_redis(), "--version"], capture_output=True, text=True, timeout=10).stdout
    version = re.search(r"v=([\d.]+)", output)
    return version[1] if version else "0"


def _debugging() -> list[str]:
    """Return the options that permit DEBUG SLEEP, which Redis 7 and later forbid by default."""
    return ["--enable-debug-command", "local"] if int(redis_version().split(".")[0]) >= 7 else []
