"""The processes of a soak: Redis, two workers, Flower, a gateway and the client; samples, kills and restarts."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import redis

from headrace_worker.local import stack
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.chaos import model
from tests.chaos.outcome_recorder import OutcomeRecorder
from tests.chaos.workers import PYTHONPATH, children, wait_until
from tests.soak.client import DRAIN_SECONDS, ClientConfig
from tests.soak.kills import Kill, PlannedKill
from tests.soak.sampling import sample_process
from tests.soak.verdict import Sample
from tests.support.connections import free_port
from tests.support.processes import signal_worker

#: Only the last is killed as a whole. The first lives as long as the soak: in a life of minutes, a connection that
#: is opened once looks like a leak.
WORKERS = ("worker-1", "worker-2")
#: Seconds of a lease, the default, and for which outcomes and dead letters are kept: less than a soak lasts, so
#: that the memory of Redis becomes level within it.
LEASE_SECONDS, KEPT_SECONDS = 10.0, 180
#: The tasks that Flower keeps in memory, likewise: at its default of 100,000 it grows for longer than it lives.
FLOWER_TASKS = 5_000


class Site:
    """The processes and the observations, as a context manager. Files are in `folder`."""

    def __init__(self, folder: Path, *, rate: float, seed: int) -> None:
        self.folder, self._rate, self._seed = folder, rate, seed
        self.record = folder / "client.jsonl"
        self.samples: list[Sample] = []
        #: The numbers of keys in Redis, with monotonic times.
        self.keys: list[tuple[float, int]] = []
        self.kills: list[Kill] = []
        self.outages: list[tuple[float, float]] = []
        self.unexpected_ends: list[str] = []
        self._redis_folder = folder / "redis"
        self._gateway_port, self._flower_port = free_port(), free_port()
        self._children: dict[str, stack.Child] = {}

    @property
    def redis_folder(self) -> Path:
        """The folder of the append-only file."""
        return self._redis_folder

    def start(self) -> None:
        """Start workers, Flower, gateway and client; return when all are ready."""
        workers = stack.start_workers(
            self._redis.url,
            self._models,
            self.folder,
            dict.fromkeys(WORKERS, self._environ),
            concurrency=2,
        )
        self._children.update(zip(WORKERS, workers, strict=True))
        for name in ("Flower", "gateway"):
            self._start(name)
        config = ClientConfig(
            url=self._redis.url,
            gateway=f"http://127.0.0.1:{self._gateway_port}",
            record=str(self.record),
            rate=self._rate,
            seed=self._seed,
        )
        arguments = ["tests.soak.client", msgspec.json.encode(config).decode()]
        self.client = stack.Child("client", arguments, self._environ, self.folder / "client.log")
        wait_until(self.record.exists, 60, "a first job")

    @property
    def _environ(self) -> Mapping[str, str]:
        return {
            "PYTHONPATH": PYTHONPATH,
            "HEADRACE_TRUST_PICKLE": "true",
            "HEADRACE_LEASE": f"{LEASE_SECONDS:g}",
            "HEADRACE_RESULT_TTL": str(KEPT_SECONDS),
            "HEADRACE_DEAD_LETTERS_TTL": str(KEPT_SECONDS),
            "FLOWER_MAX_TASKS": str(FLOWER_TASKS),
            model.RUNS_VARIABLE: os.devnull,
            model.SCRATCH_VARIABLE: str(self.folder),
        }

    def _start(self, name: str) -> None:
        """Start a process, and wait until it is ready."""
        url, folder, environ = self._redis.url, self.folder, dict(self._environ)
        starts: dict[str, Callable[[], stack.Child]] = {
            "Flower": lambda: stack.start_flower(url, folder, port=self._flower_port, **environ),
            "gateway": lambda: stack.start_gateway(url, folder, port=self._gateway_port, **environ),
        }
        for worker in WORKERS:
            starts[worker] = lambda: stack.start_worker(url, self._models, folder, name=name, **environ)
        self._children[name] = starts[name]()

    def kill(self, planned: PlannedKill, second: float) -> None:
        """Kill a process (SIGKILL), start it again, and wait until it is ready."""
        killed_at = time.monotonic()
        match planned.victim:
            case "Redis":
                self._redis.kill()
                self._redis.start()
                self.outages.append((killed_at, time.monotonic()))
            case "pool process":
                self._kill_pool_process(planned.choice)
            case _:
                name = WORKERS[-1] if planned.victim == "worker" else planned.victim
                self._end(name)
                self._start(name)
        self.kills.append(Kill(victim=planned.victim, second=second, ready_after=time.monotonic() - killed_at))

    def _kill_pool_process(self, choice: float) -> None:
        pool = sorted((pid, name) for name in WORKERS for pid in children(self._children[name].process.pid))
        if not pool:
            return
        pid, name = pool[int(choice * len(pool))]
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        count = len([pid for pid, of_worker in pool if of_worker == name])
        worker = self._children[name].process.pid
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: len(set(children(worker)) - {pid}) >= count, 30, "a new pool process")

    def _end(self, name: str) -> None:
        """Kill all processes of a service."""
        child = self._children[name]
        with contextlib.suppress(OSError):
            signal_worker(child.process.pid, signal.SIGKILL)
        child.process.wait(10)
        child.stop()

    def restart_ended(self) -> None:
        """Start the processes again that ended by themselves, and record that they did."""
        for name, child in self._children.items():
            if child.process.poll() is not None:
                self.unexpected_ends.append(f"{name}: code {child.process.returncode}, {_last_line(child.log)}")
                child.stop()
                self._start(name)
        self.client.check()

    def take_samples(self) -> None:
        """Sample all processes, and the number of keys."""
        pids = [("client", self.client.process.pid)]
        for name, child in self._children.items():
            kind = "worker" if name in WORKERS else name
            pids.append((kind, child.process.pid))
            pids += [(f"{kind}, pool" if kind == "worker" else kind, pid) for pid in children(child.process.pid)]
        self.samples += [sample for kind, pid in pids if (sample := sample_process(kind, pid))]
        with contextlib.suppress(redis.RedisError):
            server, memory = self._server.info("server"), self._server.info("memory")
            sample = sample_process("Redis", server["process_id"], other_bytes=memory["used_memory"])
            if sample:
                self.samples.append(sample)
            self.keys.append((time.monotonic(), self._server.dbsize()))
        for port, path in ((self._flower_port, "/workers"), (self._gateway_port, "/v1/models")):
            with contextlib.suppress(urllib.error.URLError, OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).close()

    def stop_client(self) -> None:
        """Stop the client, and wait until it has its outcomes. Raises TimeoutError."""
        self.client.process.terminate()
        wait_until(lambda: self.client.process.poll() is not None, DRAIN_SECONDS + 30, "the end of the client")
        if code := self.client.process.returncode:
            self.unexpected_ends.append(f"client: code {code}, {_last_line(self.client.log)}")

    def stop_workers(self) -> None:
        """Stop the workers."""
        for name in WORKERS:
            self._children[name].process.terminate()
        for name in WORKERS:
            self._children[name].stop()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as exits:
            self._redis_folder.mkdir()
            # The append-only file is not rewritten: at the end it has every write of an outcome.
            options = ("--dir", str(self._redis_folder), "--auto-aof-rewrite-percentage", "0")
            self._redis = exits.enter_context(EmbeddedRedis(*options))
            self._server = exits.enter_context(redis.Redis.from_url(self._redis.url, client_name="soak"))
            self.recorder = exits.enter_context(
                OutcomeRecorder(redis.Redis.from_url(self._redis.url, client_name="soak-recorder"))
            )
            self._models = model.add_models(self.folder)
            exits.callback(self._stop_all)
            self._exits = exits.pop_all()
        return self

    def _stop_all(self) -> None:
        for child in [*self._children.values(), *([self.client] if hasattr(self, "client") else [])]:
            with contextlib.suppress(ProcessLookupError):
                child.process.terminate()
        for child in [*self._children.values(), *([self.client] if hasattr(self, "client") else [])]:
            child.stop()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._exits.close()


def _last_line(log: Path) -> str:
    return (log.read_text(errors="replace").strip().splitlines() or ["its log is empty"])[-1][:300]
