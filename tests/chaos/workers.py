"""Worker processes of the suite."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.processes import signal_worker

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
        signal_worker(self.pid, number)

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
