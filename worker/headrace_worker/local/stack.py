"""Workers, Flower and a gateway as child processes on this machine: for `headrace demo`, `headrace dev`, tests."""

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
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from importlib.metadata import entry_points
from pathlib import Path
from types import FrameType

from headrace.errors import HeadraceError
from headrace_worker.local.parent_death import with_parent_death_signal

#: Seconds for a child to become ready, and to exit after SIGTERM before it is killed.
_READY_SECONDS, _STOP_SECONDS = 60.0, 15.0
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


class _Interrupts:
    """The state of Ctrl-C while a stack is open, and the children that its end must stop."""

    def __init__(self) -> None:
        #: Blocks within `hold_interrupts`, and whether a signal has come.
        self.holds = 0
        self.has_come = False
        self.children: list[Child] = []

    def raise_if_come(self) -> None:
        """Raise KeyboardInterrupt if a signal came while it was held, or where its exception was swallowed."""
        if self.has_come and not self.holds:
            raise KeyboardInterrupt


_interrupts = _Interrupts()


@contextlib.contextmanager
def hold_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back within the block, so that no process is started without being known; then raise it."""
    _interrupts.holds += 1
    try:
        yield
    finally:
        _interrupts.holds -= 1
    _interrupts.raise_if_come()


def raise_if_interrupted() -> None:
    """Raise KeyboardInterrupt if Ctrl-C was pressed: Python swallows the exception in a callback of C code."""
    _interrupts.raise_if_come()


class Child:
    """A child process in a session of its own, so that Ctrl-C does not reach it; its output goes to a log file."""

    def __init__(self, name: str, arguments: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        self.name, self.log = name, log
        with hold_interrupts():
            self.process = start_process(["-m", *arguments], {**os.environ, **environ}, log)
            _interrupts.children.append(self)

    def check(self) -> None:
        """Raise HeadraceError with the last lines of the log if the process has exited."""
        if (code := self.process.poll()) is not None:
            lines = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
            raise HeadraceError(
                f"the {self.name} exited with code {code}; last lines of its log {self.log}:\n{lines}"
            )

    def stop(self) -> None:
        """Send SIGTERM; kill the process and its children if it does not exit in time."""
        if self in _interrupts.children:
            _interrupts.children.remove(self)
        if self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def start_process(arguments: Sequence[str], environ: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start Python with these arguments, in a session of its own."""
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603  # our own arguments
            with_parent_death_signal([sys.executable, *arguments]),
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def start_worker(
    url: str, models: Path, folder: Path, *, concurrency: int = 2, name: str = "worker", **environ: str
) -> Child:
    """Start a worker that serves a store; return once it is ready. `environ` are variables for it.

    Raises HeadraceError if it exits, or is not ready in time.
    """
    return start_workers(url, models, folder, {name: environ}, concurrency=concurrency)[0]


def start_workers(
    url: str,
    models: Path,
    folder: Path,
    environs: Mapping[str, Mapping[str, str]],
    *,
    concurrency: int,
    ready_seconds: float = _READY_SECONDS,
) -> list[Child]:
    """Start workers together; return once all are ready. `environs` are the variables of each, by its name.

    Raises HeadraceError if one exits, or is not ready in time; then all are stopped.
    """
    with contextlib.ExitStack() as on_failure:
        started = []
        for name, environ in environs.items():
            ready = folder / f"{name}.ready"
            ready.unlink(missing_ok=True)
            arguments = ["headrace.cli", "worker", "--concurrency", str(concurrency), "--hostname", f"{name}@%h"]
            variables = {
                "HEADRACE_REDIS_URL": url,
                "HEADRACE_MODELS": str(models),
                "HEADRACE_READY_FILE": str(ready),
                "HEADRACE_DRAIN": str(_STOP_SECONDS - 5),
                **environ,
            }
            child = Child(name, arguments, variables, folder / f"{name}.log")
            on_failure.callback(child.stop)
            started.append((child, ready))
        for child, ready in started:
            _wait_until(ready.exists, child, ready_seconds)
        on_failure.pop_all()
    return [child for child, _ in started]


def start_flower(url: str, folder: Path, *, port: int, **environ: str) -> Child:
    """Start Flower on loopback, without a login by default; return once it answers.

    `environ` are variables for it. Raises HeadraceError if it exits, or is not ready in time.
    """
    child = Child(
        "flower",
        ["headrace.cli", "flower", "--port", str(port)],
        {"HEADRACE_REDIS_URL": url, "HEADRACE_FLOWER_OPEN": "true", **environ},
        folder / "flower.log",
    )
    _wait_until(lambda: _answers(f"http://127.0.0.1:{port}/healthcheck"), child)
    return child


def has_gateway() -> bool:
    """Decide whether the command `headrace gateway` is installed. It is a distribution of its own."""
    return bool(entry_points(group="headrace.commands", name="gateway"))


def start_gateway(url: str, folder: Path, *, port: int, **environ: str) -> Child:
    """Start the HTTP gateway on loopback, without API keys by default; return once it answers.

    `environ` are variables for it. Raises HeadraceError if it exits, or is not ready in time.
    """
    variables = {
        "HEADRACE_REDIS_URL": url,
        "HEADRACE_GATEWAY_ADDRESS": "127.0.0.1",
        "HEADRACE_GATEWAY_PORT": str(port),
        "HEADRACE_GATEWAY_OPEN": "true",
        **environ,
    }
    child = Child("gateway", ["headrace.cli", "gateway"], variables, folder / "gateway.log")
    _wait_until(lambda: _answers(f"http://127.0.0.1:{port}/v1/models", any_status=True), child)
    return child


def _wait_until(is_ready: Callable[[], bool], child: Child, seconds: float = _READY_SECONDS) -> None:
    """Wait for a condition; stop the child and raise HeadraceError if it exits, or is not ready in time."""
    deadline = time.monotonic() + seconds
    with contextlib.ExitStack() as on_failure:
        on_failure.callback(child.stop)
        while not is_ready() and time.monotonic() < deadline:
            child.check()
            raise_if_interrupted()
            time.sleep(0.05)
        if not is_ready():
            raise HeadraceError(f"the {child.name} was not ready after {seconds:.0f} s; see {child.log}")
        on_failure.pop_all()


def _answers(url: str, *, any_status: bool = False) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as response:  # noqa: S310  # http on loopback
            return bool(any_status or response.status == 200)
    except urllib.error.HTTPError as error:
        error.close()
        return any_status
    except (urllib.error.URLError, OSError):
        return False


@contextlib.contextmanager
def interruptible_stack() -> Iterator[contextlib.ExitStack]:
    """Open a stack of callbacks that run at the end of the block, also after Ctrl-C or SIGTERM.

    Both signals raise KeyboardInterrupt. Later ones are ignored, so that a second Ctrl-C cannot interrupt the
    callbacks and leave processes behind. Children that no callback has stopped are stopped after the callbacks.
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
        _interrupts.has_come = True
        _interrupts.raise_if_come()

    _interrupts.has_come = False
    former = {number: signal.signal(number, interrupt) for number in _INTERRUPTS}
    try:
        with contextlib.ExitStack() as stack:
            stack.callback(_stop_children, {*_interrupts.children})
            try:
                yield stack
            finally:
                ignore()
    finally:
        _interrupts.has_come = False
        for number, handler in former.items():
            signal.signal(number, handler)


def _stop_children(earlier: Set[Child]) -> None:
    """Stop the children that were started in this stack and still run; `earlier` are those of others."""
    for child in [*_interrupts.children]:
        if child not in earlier:
            child.stop()
