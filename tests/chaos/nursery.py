"""A process that has imported what every worker imports, and forks workers: 200 of them on two cores.

`python -m tests.chaos.nursery` reads an order a line, `{"argv", "environ", "log"}`, and answers with a process id.
What it forks is a Celery worker as any other, in a session of its own, that reads its settings from its
environment. It ends when its stdin does; its workers are ended by whoever ordered them.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import runpy
import select
import signal
import sys
from typing import Any

# What takes a worker seconds to import. Not `headrace_worker.app`: it reads the environment.
import tests.chaos.model  # noqa: F401

#: Of prctl, on Linux: the signal to get when the parent ends.
_PDEATHSIG = 1
#: Seconds between two looks for workers that have ended.
_REAP_EVERY = 0.05


def main() -> None:
    """Fork until stdin ends."""
    while True:
        readable, _, _ = select.select([0], [], [], _REAP_EVERY)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not readable:
            continue
        line = _line()
        if not line:
            return
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(order)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


def _line() -> bytes:
    """A line of stdin, unbuffered: what is buffered, select does not see."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return b""
        line += byte
    return line


def _become(order: dict[str, Any]) -> None:
    os.setsid()
    # However this suite ends, a worker does not outlive it.
    ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL)
    log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for file, descriptor in ((null, 0), (log, 1), (log, 2)):
        os.dup2(file, descriptor)
    os.environ.update(order["environ"])
    signal.set_wakeup_fd(-1)
    sys.argv = order["argv"]
    code = 1
    try:
        runpy.run_module("celery", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException as error:  # noqa: BLE001  # it is a process of its own: what ends it goes to its log
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        with contextlib.suppress(BaseException):
            import atexit

            atexit._run_exitfuncs()  # os._exit skips them, and a plain exit would unwind `main`
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
