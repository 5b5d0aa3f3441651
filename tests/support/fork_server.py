"""A process that has imported the libraries of a worker, and forks a process for each `python -m MODULE`.

A worker spends most of its start on the imports of scikit-learn and SciPy. A forked process is an ordinary one
otherwise: in a session of its own, with the arguments, environment, folder and streams of the request.

`python -m tests.support.fork_server DESCRIPTOR` reads requests from a socket: `{"argv", "environ", "cwd"}` with
three descriptors starts a process, `{"pid"}` asks for its exit code. `forked_processes` is its client. The server
ends with the socket, and the forked processes with the server.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import sys
import termios
from typing import Any

import numpy as np

#: The modules that are imported before anything is forked, and the packages of which all modules are.
#: Not `headrace_worker.app`: it reads the environment.
_MODULES = (
    "celery.apps.worker",
    "celery.bin.celery",
    "celery.concurrency.prefork",
    "kombu.transport.redis",
    "pandas",
    "pyarrow.parquet",
    "skops.io",
)
_PACKAGES = (
    "headrace.cli",
    "headrace_worker.cli",
    "headrace_worker.execution",
    "headrace_worker.packaging",
    "headrace_worker.process",
    "headrace_worker.telemetry",
    "headrace_worker.transport",
)
#: The option of prctl, on Linux, for a signal when the parent ends.
_PDEATHSIG = 1
#: Seconds between two checks for ended processes.
_REAP_SECONDS = 0.05
#: More than the bytes of any request.
_MAX_BYTES = 1_000_000


def serve(requests: socket.socket) -> dict[str, Any] | None:
    """Fork processes until the socket ends. Returns the request in a forked process, and None in the server."""
    exit_codes: dict[int, int] = {}
    while True:
        readable, _, _ = select.select([requests], [], [], _REAP_SECONDS)
        with contextlib.suppress(ChildProcessError):
            while (child := os.waitpid(-1, os.WNOHANG))[0]:
                exit_codes[child[0]] = os.waitstatus_to_exitcode(child[1])
        if not readable:
            continue
        line, streams, _, _ = socket.recv_fds(requests, _MAX_BYTES, 3)
        if not line:
            return None
        request = json.loads(line)
        if "argv" not in request:
            requests.send(json.dumps(exit_codes.get(request["pid"])).encode())
            continue
        pid = os.fork()
        if pid == 0:
            requests.close()
            return request | {"streams": streams}
        exit_codes.pop(pid, None)  # of an earlier process: the kernel uses numbers again
        for descriptor in streams:
            os.close(descriptor)
        requests.send(json.dumps(pid).encode())


def become(request: dict[str, Any]) -> None:
    """Make this process as the request says, up to the module that it runs."""
    os.setsid()
    ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL)
    for number, descriptor in enumerate(request["streams"]):
        os.dup2(descriptor, number)
        os.close(descriptor)
    if os.isatty(0):
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # Ctrl-C needs a controlling terminal
    sys.stdin = open(0, closefd=False)  # noqa: SIM115  # for the whole process, as the two others
    sys.stdout = open(1, "w", closefd=False, buffering=1 if os.isatty(1) else -1)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, buffering=1, errors="backslashreplace")  # noqa: SIM115
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environ"])
    sys.path[:0] = [request["cwd"], *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    np.random.seed()


class _Execute(BaseException):
    """The program `executable` is to run `arguments` in place of this one: `headrace worker` becomes Celery's."""

    def __init__(self, executable: str, arguments: list[str]) -> None:
        self.arguments = arguments[1:]
        if executable != sys.executable:
            raise ValueError(f"not Python: {executable}")


def _execute(executable: str, arguments: list[str]) -> None:
    raise _Execute(executable, arguments)


def run_module(arguments: list[str]) -> None:
    """Run `-m MODULE ARGUMENT...` as Python does, and whatever it executes in its place."""
    os.execv = _execute  # type: ignore[assignment]
    while True:
        option, module, *rest = arguments
        if option != "-m":
            raise ValueError(f"not python -m: {arguments}")
        sys.argv = [module, *rest]
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except _Execute as execute:
            arguments = execute.arguments
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        else:
            return


def main() -> None:
    """Serve; in a forked process, run its module."""
    for name in _MODULES:
        importlib.import_module(name)
    for name in _PACKAGES:
        for module in pkgutil.iter_modules(importlib.import_module(name).__path__, f"{name}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    gc.freeze()  # a collection in a forked process would copy the pages of all objects
    request = serve(socket.socket(fileno=int(sys.argv[1])))
    if request is not None:
        become(request)
        run_module(request["argv"])


if __name__ == "__main__":
    main()
