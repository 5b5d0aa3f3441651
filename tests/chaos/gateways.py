"""Two gateways behind a balancer, and HTTP clients that put them under load."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import httpx
import msgspec

from headrace_worker.local.stack import Child
from tests.chaos import http_producer
from tests.chaos.balancer import Balancer
from tests.chaos.environment import Environment
from tests.chaos.workers import PYTHONPATH, ROOT
from tests.support.connections import free_port

#: Seconds until a gateway must answer.
_READY_SECONDS = 60.0
#: The first number of the jobs of HTTP clients.
_FIRST_JOB = 5_000_000


class Gateways:
    """The gateways of a scenario and their balancer, as a context manager."""

    def __init__(self, env: Environment, count: int = 2) -> None:
        self._env = env
        self._ports = [free_port() for _ in range(count)]
        self._children: dict[int, Child] = {}
        self._stack = contextlib.ExitStack()

    @property
    def url(self) -> str:
        """The URL of the balancer."""
        return f"http://127.0.0.1:{self._balancer.port}"

    def kill_one(self, *, with_signal: signal.Signals = signal.SIGKILL) -> None:
        """End a random gateway by a signal, and start it again."""
        port = self._env.random.choice(self._ports)
        child = self._children[port]
        child.process.send_signal(with_signal)
        child.process.wait(_READY_SECONDS)
        self._start(port)

    def wait_until_ready(self) -> None:
        """Wait until all gateways answer."""
        for port in self._ports:
            self._env.wait(lambda port=port: self._answers(port), f"the gateway on port {port}", _READY_SECONDS)

    @contextlib.contextmanager
    def load(self, rate: float, longest: float) -> Iterator[None]:
        """Let HTTP clients submit `rate` jobs a second while the block runs; each takes up to `longest` seconds.

        At the end they wait for the outcome of each confirmed job. Raises RuntimeError if one was lost, or if a
        repeated request got another job.
        """
        config = http_producer.HttpProducerConfig(
            url=self.url,
            ledger=str(self._env.folder / "http.ledger"),
            first=_FIRST_JOB,
            rate=rate,
            longest=longest,
            seed=self._env.random.randrange(2**31),
        )
        command = [sys.executable, "-m", "tests.chaos.http_producer", msgspec.json.encode(config).decode()]
        output = self._env.folder / "http-producer.log"
        with output.open("ab") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, "PYTHONPATH": PYTHONPATH}, stdout=log, stderr=log
            )
        try:
            self._env.wait(lambda: self._env.runs() or process.poll() is not None, "a first job over HTTP", 60)
            yield
            process.terminate()
            process.wait(http_producer.DRAIN_SECONDS + 15)
        finally:
            process.kill()
            process.wait()
        if process.returncode != 0:
            raise RuntimeError(f"the HTTP clients failed: {output.read_text()[-3000:]}")

    def _start(self, port: int) -> None:
        environ = {
            "HEADRACE_REDIS_URL": self._env.url,
            "HEADRACE_GATEWAY_OPEN": "true",
            "HEADRACE_GATEWAY_PORT": str(port),
            "PYTHONPATH": PYTHONPATH,
        }
        log = self._env.folder / f"gateway-{port}.log"
        self._children[port] = Child(f"gateway-{port}", ["headrace.cli", "gateway"], environ, log)

    def _answers(self, port: int) -> bool:
        self._children[port].check()
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{port}/v2/health/live", timeout=5).status_code < 500
        return False

    def __enter__(self) -> Self:
        self._balancer = self._stack.enter_context(Balancer(self._ports))
        for port in self._ports:
            self._start(port)
            self._stack.callback(lambda port=port: self._children[port].stop())
        self.wait_until_ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()
