"""Run a step in a child process first, so that a crash or a hang takes the child and not this process.

Reading a model runs native code on bytes that somebody made. A file may be forged, or a library may have a fault:
both can end a process, or stop it for ever.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable

from headrace.errors import ModelError

_PR_SET_PDEATHSIG = 1  # prctl(2)
#: Bytes of an error's text that are sent back.
_MAX_TEXT = 4096
#: The priority that a child gives up: it must not slow down the processes that run jobs.
_NICENESS = 10


def run_in_child(step: Callable[[], object], *, seconds: float, doing: str) -> None:
    """Run a step in a process forked from this one. Its result and its changes to memory are lost.

    `doing` describes it for errors: "churn@3 was loaded". Raises the step's own ModelError, and ModelError if the
    child was killed, or if it took longer than `seconds`. Raises OSError if no process can be forked.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later, of forks while threads run
        child = os.fork()
    if child == 0:
        os.close(reader)
        _run(step, writer)
    os.close(writer)
    try:
        text = _read(reader, time.monotonic() + seconds)
    finally:
        os.close(reader)
        # A finished child can be killed too, until it is waited for. Its own child is killed with it.
        status = 0
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
    if text is None:
        raise ModelError(f"{doing} in a process of its own first, which did not finish in {seconds:g} seconds")
    if text == b"":
        raise ModelError(f"{doing} in a process of its own first, which was ended by {_describe_end(status)}")
    if text != _DONE:
        raise ModelError(text[1:].decode(errors="replace"))


#: The answer of a child whose step ended without an error. An error's text follows another first byte.
_DONE, _FAILED = b"\0", b"\1"


def _run(step: Callable[[], object], writer: int) -> None:
    """Run the step, send the answer, and end this process, whatever happens."""
    answer = b""
    try:
        signal.set_wakeup_fd(-1)
        with contextlib.suppress(AttributeError, OSError):  # Linux only
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.nice(_NICENESS)
        step()
        answer = _DONE
    except ModelError as error:
        answer = _FAILED + str(error).encode()[:_MAX_TEXT]
    except BaseException as error:  # noqa: BLE001  # a model may raise anything
        answer = _FAILED + f"{type(error).__name__}: {error}".encode(errors="replace")[:_MAX_TEXT]
    finally:
        with contextlib.suppress(OSError):
            os.write(writer, answer)
        os._exit(0)  # no exit handler of the parent, and no output that it has not written yet


def _describe_end(status: int) -> str:
    if not os.WIFSIGNALED(status):
        return f"its own exit with {os.waitstatus_to_exitcode(status)}"
    number = os.WTERMSIG(status)
    if number == signal.SIGKILL:
        return "SIGKILL: the system ends a process that takes too much memory"
    return f"{signal.Signals(number).name}: the file is damaged or forged, or its library has a fault"


def _read(reader: int, deadline: float) -> bytes | None:
    """Read the child's answer, b"" if it ended without one. Return None if the deadline passes first."""
    chunks: list[bytes] = []
    while True:
        ready, _, _ = select.select([reader], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return None
        if not (chunk := os.read(reader, 65_536)):
            return b"".join(chunks)
        chunks.append(chunk)
