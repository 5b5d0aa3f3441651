"""A process that has imported the libraries of a worker, and forks workers: two cores can start 200 of them.

`python -m tests.chaos.fork_server` reads a request per line, `{"argv", "environ", "log"}`, and replies with the id
of the forked process. A forked process is an ordinary Celery worker in its own session, with its settings in its
environment. The server ends with its stdin; its client ends the workers.
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

# The slow imports of a worker. Not `headrace_worker.app`: it reads the environment.
import pyarrow.parquet  # noqa: F401

import tests.chaos.bulk_model
import tests.chaos.model  # noqa: F401

#: The option of prctl, on Linux, for a signal when the parent ends.
_PDEATHSIG = 1
#: Seconds between two checks for ended workers.
_REAP_SECONDS = 0.05


def main() -> None:
    """Fork workers until stdin ends."""
    while True:
        readable, _, _ = select.select([0], [], [], _REAP_SECONDS)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not readable:
            continue
        line = _read_line()
        if not line:
            return
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _run_worker(request)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


def _read_line() -> bytes:
    """Read a line of stdin without buffering: select does not see buffered bytes."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return b""
        line += byte
    return line


def _run_worker(request: dict[str, Any]) -> None:
    os.setsid()
    # A worker ends with its parent, however that ends.
    ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL)
    log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, descriptor in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, descriptor)
    os.environ.update(request["environ"])
    signal.set_wakeup_fd(-1)
    sys.argv = request["argv"]
    code = 1
    try:
        runpy.run_module("celery", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException as error:  # noqa: BLE001  # the error of this process goes to its log
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
