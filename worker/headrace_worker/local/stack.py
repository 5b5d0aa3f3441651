"""A whole Headrace on one machine: Redis, a worker, and Flower if asked, as child processes of this one.

`headrace demo` and `headrace dev` run in it; so do the tests that need a real worker. It stops everything it
started, in the reverse order, also when it is interrupted or fails half way.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from headrace.errors import HeadraceError
from headrace_worker.local.child import with_parent_death_signal

#: How long a child may take to be ready, and to end after SIGTERM, before it is killed.
_READY_SECONDS, _STOP_SECONDS = 60.0, 15.0
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


class Child:
    """A process of the stack: its output goes to a log file, its signals come from us alone."""

    def __init__(self, name: str, arguments: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        self.name, self.log = name, log
        with log.open("ab") as output:
            self.process = subprocess.Popen(  # noqa: S603  # our own arguments
                with_parent_death_signal([sys.executable, "-m", *arguments]),
                env={**os.environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def check(self) -> None:
        """Raises HeadraceError with the last lines of the log when the process has ended."""
        if (code := self.process.poll()) is not None:
            said = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
            raise HeadraceError(
                f"the {self.name} ended with exit code {code}; its last lines ({self.log}):\n{said}"
            )

    def stop(self) -> None:
        """Ask it to end; kill it and what it forked if it does not."""
        if self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def start_worker(
    url: str, models: Path, folder: Path, *, concurrency: int = 2, name: str = "worker", **more: str
) -> Child:
    """A worker that serves a store; returns when it is ready. `more` are further settings (HEADRACE_...)."""
    ready = folder / f"{name}.ready"
    ready.unlink(missing_ok=True)
    arguments = ["headrace.cli", "worker", "--concurrency", str(concurrency), "--hostname", f"{name}@%h"]
    environ = {
        "HEADRACE_REDIS_URL": url,
        "HEADRACE_MODELS": str(models),
        "HEADRACE_READY_FILE": str(ready),
        "HEADRACE_DRAIN": str(_STOP_SECONDS - 5),
        **more,
    }
    child = Child(name, arguments, environ, folder / f"{name}.log")
    _wait(child, ready.exists)
    return child


def start_flower(url: str, folder: Path, *, port: int, **more: str) -> Child:
    """Flower on loopback, without a login unless `more` settings say otherwise; returns when it answers."""
    child = Child(
        "flower",
        ["headrace.cli", "flower", "--port", str(port)],
        {"HEADRACE_REDIS_URL": url, "HEADRACE_FLOWER_OPEN": "true", **more},
        folder / "flower.log",
    )
    _wait(child, lambda: _answers(f"http://127.0.0.1:{port}/healthcheck"))
    return child


def _wait(child: Child, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    with contextlib.ExitStack() as on_failure:
        on_failure.callback(child.stop)
        while not ready() and time.monotonic() < deadline:
            child.check()
            time.sleep(0.05)
        if not ready():
            raise HeadraceError(f"the {child.name} was not ready after {_READY_SECONDS:.0f} s; see {child.log}")
        on_failure.pop_all()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:  # noqa: S310  # http on loopback
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@contextlib.contextmanager
def until_interrupted() -> Iterator[contextlib.ExitStack]:
    """What is to end with the block. SIGTERM ends it as Ctrl-C does, through every `finally`.

    From then on signals are ignored: a second Ctrl-C must not leave behind what the first one was to end.
    """
    if threading.current_thread() is not threading.main_thread():
        with contextlib.ExitStack() as stack:
            yield stack
        return

    def ignore() -> None:
        for number in _INTERRUPTS:
            signal.signal(number, signal.SIG_IGN)

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  # signal's signature
        ignore()
        raise KeyboardInterrupt

    former = {number: signal.signal(number, interrupt) for number in _INTERRUPTS}
    try:
        with contextlib.ExitStack() as stack:
            try:
                yield stack
            finally:
                ignore()
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
