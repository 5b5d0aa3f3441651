"""Worker processes of the suite, and the client of the fork server that starts them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[2]

#: The PYTHONPATH of the processes of a scenario.
PYTHONPATH = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))


def wait_until(condition: Callable[[], Any], seconds: float, description: str) -> Any:
    """Wait until the condition holds, and return its value. Raises TimeoutError with the description."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{description}: not within {seconds:g} s")
        time.sleep(0.02)
    return value


def children(pid: int) -> list[int]:
    """Return the ids of the child processes of a process."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


class Worker:
    """A worker process and its pool, in their own session."""

    def __init__(self, name: str, pid: int, log: Path, ready: Path) -> None:
        self.name, self.pid, self.log, self._ready = name, pid, log, ready
        #: The ids of all pool processes that were observed.
        self.pool: set[int] = set()

    @property
    def is_alive(self) -> bool:
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    @property
    def is_ready(self) -> bool:
        if not (self._ready.exists() and self.is_alive):
            return False
        self.pool.update(children(self.pid))
        return True

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the main process, as an init or an orchestrator does."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to the main process and its pool."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def kill(self) -> None:
        """Kill all processes (SIGKILL), and wait until the main process has ended."""
        self.pool.update(children(self.pid))
        self.signal_all(signal.SIGKILL)
        wait_until(lambda: not self.is_alive, 10, f"the end of worker {self.name}")
        self._ready.unlink(missing_ok=True)

    def stop(self, seconds: float) -> None:
        """Stop the worker (SIGTERM), and kill it if it has not ended after `seconds`."""
        self.signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: not self.is_alive, seconds, self.name)
        self.kill()


class ForkServer:
    """The process that forks workers (`fork_server`), as a context manager for a whole run."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "fork_server.log"

    def start(self, argv: Sequence[str], environ: Mapping[str, str], log: Path) -> int:
        """Fork a worker, and return its process id."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the fork server has no pipes")
        request = {"argv": list(argv), "environ": dict(environ), "log": str(log)}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        reply = self._process.stdout.readline()
        if not reply:
            raise RuntimeError(f"the fork server has ended: {self._log.read_text()[-2000:]}")
        return int(reply)

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.fork_server"],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": PYTHONPATH},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
