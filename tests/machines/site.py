"""A site of several machines: Redis on one, workers and a client on others, and a network between them.

client ──┐                     each line is a pair of veth; for each machine on the left, a proxy on the
worker ──┼── network ── redis  network forwards to Redis, and may delay
worker ──┘
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import Child, start_worker
from tests.chaos import model
from tests.chaos.evidence import ID
from tests.chaos.outcome_recorder import OutcomeRecorder
from tests.chaos.proxy import Proxy
from tests.chaos.systems import SYSTEMS
from tests.chaos.workers import PYTHONPATH
from tests.machines.machine import Machine, link

#: The number of Redis's link; the others follow.
_REDIS_LINK = 0


class Host:
    """A machine that reaches Redis through a proxy on the network."""

    def __init__(self, machine: Machine, network: Machine, number: int, proxy: Proxy) -> None:
        self.machine, self._network, self._number, self.proxy = machine, network, number, proxy
        self.worker: Child | None = None

    @property
    def pid(self) -> int:
        """The id of the worker's main process."""
        return self.worker.process.pid if self.worker is not None else 0

    def set_link(self, state: str) -> None:
        """Set the far end of the machine's link `up` or `down`: the machine itself sees nothing of it."""
        self._network.run_ip("link", "set", f"link{self._number}", state)

    def lose_power(self) -> None:
        """Take the machine off the network, and only then kill its processes: Redis hears nothing of their end."""
        self.set_link("down")
        if self.worker is not None:
            os.killpg(self.worker.process.pid, signal.SIGKILL)
            self.worker.process.wait()


class Site:
    """The machines and their processes, as a context manager. `lease` is the workers' lease, in seconds."""

    def __init__(self, folder: Path, *, workers: int, lease: float) -> None:
        self.folder, self.lease = folder, lease
        self._worker_count = workers
        self._stack = contextlib.ExitStack()
        self.redis_folder = folder / "redis"

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as on_failure:
            on_failure.enter_context(self._stack)
            self._start()
            on_failure.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def _start(self) -> None:
        enter = self._stack.enter_context
        self._network, redis_machine = enter(Machine("network")), enter(Machine("redis"))
        _, redis_address = link(self._network, redis_machine, _REDIS_LINK)
        self.redis_folder.mkdir()
        # This process reads and checks over a socket of the file system, which is not of any network.
        socket_file = self.folder / "redis.sock"
        options = ("--dir", str(self.redis_folder), "--auto-aof-rewrite-percentage", "0", "--protected-mode", "no")
        redis_server = EmbeddedRedis("--bind", redis_address, "--unixsocket", str(socket_file), *options)
        redis_machine.call(redis_server.start)
        self._stack.callback(redis_server.stop)
        self.server = enter(redis.Redis(unix_socket_path=str(socket_file)))
        self.recorder = enter(OutcomeRecorder(self.server))
        self.models = model.add_models(self.folder, rows=256)
        self.client = self._add_host("client", 1, redis_address, redis_server.port)
        self.workers = [
            self._add_host(f"worker{number}", 2 + number, redis_address, redis_server.port)
            for number in range(self._worker_count)
        ]
        for number, host in enumerate(self.workers):
            self._start_worker(host, f"worker{number}")

    def _add_host(self, name: str, number: int, redis_address: str, redis_port: int) -> Host:
        machine = self._stack.enter_context(Machine(name))
        network_address, _ = link(self._network, machine, number)
        proxy = Proxy(redis_port, host=network_address, to_host=redis_address)
        self._network.call(proxy.__enter__)
        self._stack.callback(proxy.__exit__, None, None, None)
        return Host(machine, self._network, number, proxy)

    def _start_worker(self, host: Host, name: str) -> None:
        environ = {
            "HEADRACE_TRUST_PICKLE": "true",
            "HEADRACE_LEASE": f"{self.lease:g}",
            "HEADRACE_DRAIN": "2",
            "PYTHONPATH": PYTHONPATH,
        }
        host.worker = host.machine.call(
            start_worker, host.proxy.url, self.models, self.folder, concurrency=1, name=name, **environ
        )
        self._stack.callback(host.worker.stop)

    def jobs_held_by(self, host: Host) -> frozenset[str]:
        """Return the jobs that the worker of a host has claimed."""
        messages = SYSTEMS["headrace"].held(self.server, host)
        jobs = frozenset(match[1].decode() for message in messages if (match := ID.search(message)))
        return jobs - self.recorder.published.keys()

    def seconds_until_outcomes(self, jobs: frozenset[str], since: float, timeout: float) -> float:
        """Wait until these jobs have their outcomes; return the seconds from a monotonic time to the last one."""
        deadline = time.monotonic() + timeout
        while not jobs <= self.recorder.published.keys():
            if time.monotonic() > deadline:
                missing = sorted(jobs - self.recorder.published.keys())
                raise TimeoutError(f"no outcome within {timeout:g} s: {missing[:5]}")
            time.sleep(0.02)
        return max((self.recorder.published[job][0] - since for job in jobs), default=0.0)
