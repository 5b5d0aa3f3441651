"""Several processes that share one port: they are started, started again when one ends, and ended together."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import SpawnProcess
from types import FrameType

from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from headrace_gateway.server import serve_process
from headrace_gateway.settings import GatewaySettings

log = logging.getLogger("headrace.gateway")

#: Seconds between two looks at the processes, and before an ended one is replaced.
_LOOK_SECONDS = 0.5
#: The variable by which prometheus-client finds the folder of the processes' counts.
_METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


class ProcessGroup:
    """The processes of a gateway. `listener` is bound to the port."""

    def __init__(self, settings: GatewaySettings, listener: socket.socket) -> None:
        self._settings, self._listener = settings, listener
        self._context = multiprocessing.get_context("spawn")
        self._processes: list[SpawnProcess] = []
        self._ending = threading.Event()

    @property
    def is_ending(self) -> bool:
        """True after the signal to end."""
        return self._ending.is_set()

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        self._listener.listen(2048)
        former = {number: signal.signal(number, self._end) for number in (signal.SIGINT, signal.SIGTERM)}
        with _metrics_folder():
            self._processes = [self._start() for _ in range(self._settings.gateway_processes)]
            while not self._ending.wait(_LOOK_SECONDS):
                self._replace_ended()
            self._listener.close()
            self._stop()
        for number, handler in former.items():
            signal.signal(number, handler)

    def registry(self) -> CollectorRegistry:
        """Return the counts of all processes."""
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # it has no types
        return registry

    def _end(self, _: int, __: FrameType | None) -> None:
        self._ending.set()

    def _start(self) -> SpawnProcess:
        process = self._context.Process(target=serve_process, args=(self._settings, self._listener))
        process.start()
        return process

    def _replace_ended(self) -> None:
        for index, process in enumerate(self._processes):
            if not process.is_alive():
                log.error("gateway process %s ended with code %s; another starts", process.pid, process.exitcode)
                mark_process_dead(process.pid)  # type: ignore[no-untyped-call]  # as above
                self._processes[index] = self._start()

    def _stop(self) -> None:
        for process in self._processes:
            process.terminate()
        seconds = self._settings.gateway_linger + self._settings.gateway_drain + 2
        for process in self._processes:
            process.join(seconds)
            if process.is_alive():
                log.error("gateway process %s did not end within %g s; it is killed", process.pid, seconds)
                process.kill()
                process.join()


@contextmanager
def _metrics_folder() -> Iterator[None]:
    """Let processes started here count into files of a folder."""
    with tempfile.TemporaryDirectory(prefix="headrace-gateway-") as folder:
        os.environ[_METRICS_VARIABLE] = folder
        try:
            yield
        finally:
            del os.environ[_METRICS_VARIABLE]
