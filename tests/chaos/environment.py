"""The environment of a scenario: a Redis, a proxy, workers, a producer under load, and a recorder of outcomes.

All of them are real processes. They end with the `with` block, whatever happens.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec
import redis

from headrace.settings import CLUSTER_PREFIX
from headrace_worker.local.embedded_redis import EmbeddedRedis, find_redis
from headrace_worker.local.stack import Child
from tests.chaos import evidence, ledger, model, producer
from tests.chaos.check import CheckResult, Run, check_promises
from tests.chaos.disk import small_disk
from tests.chaos.installed_servers import debug_options, find_installed
from tests.chaos.jobs import Job, id_of_row
from tests.chaos.outcome_recorder import RESULT_PREFIX, OutcomeRecorder
from tests.chaos.preload import PreloadedRedis
from tests.chaos.proxy import Proxy
from tests.chaos.sentinels import Sentinels
from tests.chaos.systems import Headrace, System
from tests.chaos.workers import PYTHONPATH, ROOT, Worker, wait_until
from tests.support.forked_processes import start_python
from tests.support.redis_cluster import RedisCluster

T = TypeVar("T")

#: Seconds until a worker must be ready.
_READY_SECONDS = 60.0
#: Seconds until all jobs must have an outcome after the last fault, by system.
_SETTLE_SECONDS = {"headrace": 60.0, "celery": 30.0}
#: The count of job numbers of each producer, and the first number of jobs that a scenario submits itself.
_LOAD_JOBS, _OWN_JOBS = 1_000_000, 10_000_000


class Requirements(msgspec.Struct, frozen=True, kw_only=True):
    """The properties of the environment that a scenario needs."""

    #: Seconds a lease lasts.
    lease: float = 2.0
    #: True for a load with jobs of every kind, False for plain jobs only.
    mixed: bool = True
    #: Bytes of a separate disk for Redis, and for the files of models; 0 uses the machine's disk.
    disk: int = 0
    scratch: int = 0
    #: True for a replica and Sentinels, and for a Redis Cluster of six nodes.
    sentinels: bool = False
    cluster: bool = False
    #: The name of the Redis server in `tests.support.redis_servers`; empty for that of `find_redis`.
    server: str = ""
    #: A source in C of this folder that is preloaded into Redis (`preload`); empty for none.
    preload: str = ""
    #: True if jobs that failed run again under their ids.
    resumed: bool = False
    #: Limits of the models, as in their manifest.
    limits: dict[str, Any] = msgspec.field(default_factory=dict)


class Environment:
    """The processes and the records of one scenario, as a context manager.

    Redis syncs every write to disk, in `folder`/redis, before it confirms it. The scenario repeats its fault
    `repetitions` times.
    """

    def __init__(
        self,
        system: System,
        folder: Path,
        requirements: Requirements,
        *,
        repetitions: int,
        seed: int,
    ) -> None:
        #: The key prefix of the system.
        self.prefix = CLUSTER_PREFIX if requirements.cluster else ""
        self.system = Headrace(self.prefix) if requirements.cluster else system
        self.folder, self.requirements = folder, requirements
        self.lease, self.repetitions = requirements.lease, repetitions
        self.random = random.Random(seed)
        self.workers: list[Worker] = []
        self.kills: list[evidence.Kill] = []
        #: The number of processes killed: workers, pool processes, and Redis.
        self.killed = 0
        #: Monotonic times at which Redis answered again after a fault, and a worker was ready after none was.
        self.redis_recovered_at: list[float] = []
        self.workers_recovered_at: list[float] = []
        #: The most seconds by which the clock of Redis was ahead.
        self.clock_ahead = 0.0
        self.notes: list[str] = []
        #: Broken promises that the scenario itself has checked.
        self.broken_promises: list[str] = []
        #: Confirmed jobs that may be lost together with their Redis.
        self.may_be_lost: frozenset[str] = frozenset()
        #: Seconds all jobs may take to get an outcome after the last fault.
        self.settle_seconds = _SETTLE_SECONDS[system.name]
        self.runs_file = folder / "runs"
        #: The folders of the append-only file, and of the files that models write.
        self.redis_folder, self.scratch = folder / "redis", folder / "scratch"
        self._numbers = iter(range(_OWN_JOBS, 2 * _OWN_JOBS))
        self._loads = iter(range(10))
        self._names = iter(range(1, 100_000))
        self._stack = contextlib.ExitStack()
        server = find_installed(requirements.server) if requirements.server else find_redis()
        options = ["--dir", str(self.redis_folder), "--auto-aof-rewrite-percentage", "0", *debug_options(server)]
        if requirements.preload:
            self.preloaded = PreloadedRedis(folder, requirements.preload, server)
            server = self.preloaded.server
        self.redis = EmbeddedRedis(*options, server=server)
        self.sentinels = Sentinels(self.redis, folder / "replica")

    @property
    def url(self) -> str:
        """The URL of Redis for workers and producers."""
        if self.requirements.cluster:
            return self.cluster.url
        return self.sentinels.url if self.requirements.sentinels else self.redis.url

    # --- actions of a scenario ------------------------------------------------------------------------

    def start_workers(self, count: int, *, through_proxy: bool = False, **environ: str) -> list[Worker]:
        """Start workers, and wait until they are ready. `environ` has further settings for them."""
        url = self.proxy.url if through_proxy else self.url
        started = [self.start_worker(url, **environ) for _ in range(count)]
        for worker in started:
            wait_until(lambda worker=worker: worker.is_ready or self._is_dead(worker), _READY_SECONDS, worker.name)
        return started

    def start_worker(self, url: str | None = None, include: str = "", **environ: str) -> Worker:
        """Start a worker without waiting. `include` is a module it imports."""
        name = f"w{next(self._names)}"
        log, ready = self.folder / f"{name}.log", self.folder / f"{name}.ready"
        settings = self.system.environ(url or self.url, self.models, ready, self.lease)
        argv = self.system.argv(name) + (["--include", include] if include else [])
        process = start_python(["-m", *argv], {**os.environ, **self._environ(settings | environ)}, log)
        worker = Worker(name, process.pid, log, ready)
        self.workers.append(worker)
        return worker

    def start_standalone_worker(self, **environ: str) -> Worker:
        """Start a worker by `headrace worker` and wait until it is ready."""
        name = f"w{next(self._names)}"
        log, ready = self.folder / f"{name}.log", self.folder / f"{name}.ready"
        command = ["headrace.cli", "worker", "--concurrency", "2", "--hostname", f"{name}@chaos"]
        settings = self.system.environ(self.url, self.models, ready, self.lease)
        child = Child(name, command, self._environ(settings | environ), log)
        self._stack.callback(child.process.wait)
        worker = Worker(name, child.process.pid, log, ready)
        self.workers.append(worker)
        wait_until(lambda: worker.is_ready or self._is_dead(worker), _READY_SECONDS, worker.name)
        return worker

    def _environ(self, settings: dict[str, str]) -> dict[str, str]:
        paths = {
            "PYTHONPATH": PYTHONPATH,
            model.RUNS_VARIABLE: str(self.runs_file),
            model.SCRATCH_VARIABLE: str(self.scratch),
        }
        return paths | settings

    def _is_dead(self, worker: Worker) -> bool:
        if worker.is_alive:
            return False
        raise RuntimeError(f"worker {worker.name} ended: {worker.log.read_text()[-2000:]}")

    @property
    def ready_workers(self) -> list[Worker]:
        """The workers that are ready."""
        return [worker for worker in self.workers if worker.is_ready]

    def kill(self, worker: Worker) -> None:
        """Kill a worker's processes (SIGKILL), and record the jobs it held."""
        worker.kill()
        self.killed += 1
        self.record_kill(self.held(worker))
        self.workers.remove(worker)

    def kill_redis(self) -> None:
        """Kill Redis (SIGKILL)."""
        self.redis.kill()
        self.killed += 1

    def record_kill(self, held: frozenset[str]) -> None:
        """Record a fault, just now, of the process that holds these jobs."""
        self.kills.append(evidence.Kill(time.monotonic(), held))

    def held(self, worker: Worker) -> frozenset[str]:
        """Return the jobs without an outcome that a worker has claimed.

        If the system does not record claims, these are the jobs that the worker has started.
        """
        messages = self.system.held(self.server, worker)
        jobs = {match[1].decode() for message in messages if (match := evidence.ID.search(message))}
        if self.system.name != "headrace":
            jobs = {run.job for run in self.runs() if run.pid in worker.pool}
        return frozenset(job for job in jobs if job not in self.recorder.published)

    @contextlib.contextmanager
    def load(
        self,
        rate: float = 80,
        longest: float = 0.03,
        *,
        through_proxy: bool = False,
        pythonpath: str = PYTHONPATH,
        **more: Any,
    ) -> Iterator[None]:
        """Submit `rate` jobs per second while the block runs; each takes up to `longest` seconds.

        `pythonpath` has the code of the producer. `more` are further fields of `ProducerConfig`. Two loads may run
        at once.
        """
        number = next(self._loads)
        path = self.folder / f"producer-{number}.ledger"
        config = producer.ProducerConfig(
            system=self.system.name,
            url=self.proxy.url if through_proxy else self.url,
            ledger=str(path),
            first=1 + number * _LOAD_JOBS,
            rate=rate,
            longest=longest,
            mixed=self.requirements.mixed,
            seed=self.random.randrange(2**31),
            **more,
        )
        command = [sys.executable, "-m", "tests.chaos.producer", msgspec.json.encode(config).decode()]
        with (self.folder / "producer.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": pythonpath},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self.wait(lambda: path.exists() or process.poll() is not None, "a first job", 60)
            yield
            process.terminate()
            if not self.holds_within(lambda: process.poll() is not None, producer.DRAIN_SECONDS + 15):
                self.notes.append("the producer hung")
                self.expect(False, "the producer did not end")
                return
        finally:
            process.kill()
            process.wait()
        if process.returncode != 0:
            raise RuntimeError(f"the producer failed: {(self.folder / 'producer.log').read_text()[-2000:]}")

    def submit(self, jobs: Sequence[Job], **more: Any) -> bool:
        """Submit jobs from this process, and return True if they were confirmed."""
        return self.producer.submit(jobs, **more)

    def jobs(self, count: int, **more: Any) -> list[Job]:
        """Make jobs for the scenario itself to submit."""
        return [Job(number=next(self._numbers), **more) for _ in range(count)]

    def wait(self, condition: Any, description: str, seconds: float = 30.0) -> Any:
        """Wait until the condition holds, and return its value. Raises TimeoutError."""
        return wait_until(condition, seconds, description)

    def holds_within(self, condition: Any, seconds: float) -> bool:
        """Wait until the condition holds, and return True if it did in time."""
        try:
            return bool(wait_until(condition, seconds, "a condition"))
        except TimeoutError:
            return False

    def expect(self, holds: bool, description: str) -> None:
        """Record a broken promise with this description unless the condition holds."""
        if not holds:
            self.broken_promises.append(description)

    def runs(self) -> list[Run]:
        """Return every run that the models recorded."""
        if not self.runs_file.exists():
            return []
        complete, _, _ = self.runs_file.read_text().rpartition("\n")
        runs = []
        for line in complete.splitlines():
            pid, started, *rows = line.split()
            runs += [
                Run(int(pid), float(started), job) for job in dict.fromkeys(id_of_row(float(row)) for row in rows)
            ]
        return [
            run for run in runs if run.job != id_of_row(0)
        ]  # the example, which a worker predicts when it loads the model

    @property
    def failed_submits(self) -> int:
        """The number of submits that raised."""
        return sum(ledger.read(self.folder).raised.values())

    def outcome(self, job: str) -> dict[str, Any] | None:
        """Return a job's outcome as stored; None if there is none. That a job runs is no outcome."""
        raw = self.server.get(self.prefix + RESULT_PREFIX + job)
        outcome = msgspec.json.decode(raw) if isinstance(raw, bytes) else {"status": "STARTED"}
        return None if outcome["status"] == "STARTED" else outcome

    def log_tails(self) -> str:
        """Return the last lines of the newest logs, for the error of a scenario that fails."""
        logs = sorted(self.folder.glob("*.log"), key=lambda log: log.stat().st_mtime)
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-1500:]}" for log in logs[-6:])

    # --- end of a scenario ---------------------------------------------------------------------------------

    def enter(self, context: contextlib.AbstractContextManager[T]) -> T:
        """Enter a context manager that is to end with this environment."""
        return self._stack.enter_context(context)

    def settle(self) -> None:
        """Wait until no job waits and no further outcome is published."""
        evidence.wait_until_settled(self)

    def check(self) -> CheckResult:
        """Wait until all jobs are settled, stop the workers, and check the promises."""
        self.settle()
        self.stop_workers()
        result = check_promises(evidence.collect_evidence(self))
        if result.lost and self.may_be_lost:
            self.notes.append(f"{result.lost} jobs lost that were not durable")
        return msgspec.structs.replace(result, broken_promises=[*result.broken_promises, *self.broken_promises])

    def stop_workers(self) -> None:
        """Stop all workers at the same time."""
        for worker in self.workers:
            worker.signal(signal.SIGTERM)
        for worker in self.workers:
            worker.stop(15)
        self.workers.clear()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            for path, size in (
                (self.redis_folder, self.requirements.disk),
                (self.scratch, self.requirements.scratch),
            ):
                path.mkdir()
                stack.enter_context(small_disk(path, size))
            stack.enter_context(self.redis)
            if self.requirements.sentinels:
                (self.folder / "replica").mkdir()
                stack.enter_context(self.sentinels)
            self.server = stack.enter_context(redis.Redis.from_url(self.redis.url, client_name="chaos"))
            self.proxy = stack.enter_context(Proxy(self.redis.port))
            recorded_url = self.redis.url
            if self.requirements.cluster:
                options = ("--appendfsync", "always", "--auto-aof-rewrite-percentage", "0")
                self.cluster = stack.enter_context(RedisCluster(find_redis(), *options))
                self.server = self.cluster.owner().db
                # Every node hears what is published; this one is never killed.
                recorded_url = self.cluster.others()[0].server.url
            self.recorder = stack.enter_context(
                OutcomeRecorder(redis.Redis.from_url(recorded_url, client_name="chaos-recorder"), self.prefix)
            )
            self.models = model.add_models(self.folder, **self.requirements.limits)
            self.producer = producer.Producer(
                producer.open_connection(self.system.name, self.url), self.folder / "scenario.ledger"
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
