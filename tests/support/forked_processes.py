"""Start `python -m MODULE` as a fork of a process that has imported the slow libraries (`fork_server`)."""

from __future__ import annotations

import atexit
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from tests.support import ROOT

#: Matches the names of variables that Python or the libraries read when they start. Sentry starts before the
#: libraries that it watches are imported.
_READ_AT_START = re.compile(r"PYTHON(?!PATH$)|LC_|LANG$|.*_NUM_THREADS$|SENTRY_|OTEL_|PROMETHEUS_").match
#: Seconds between two looks whether a process has ended.
_LOOK_SECONDS = 0.01


class ForkServer:
    """The server of this process. It starts with the first process, and ends with this process."""

    def __init__(self) -> None:
        self._lock, self._owner = threading.Lock(), 0
        self._requests: socket.socket | None = None

    def start(
        self,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        *,
        stdin: IO[bytes] | None,
        stdout: IO[bytes],
        stderr: IO[bytes],
        cwd: Path | None = None,
    ) -> ForkedProcess | subprocess.Popen[bytes]:
        """Start `python ARGUMENTS...`, which are `-m MODULE ...`, with these streams, in a folder.

        `stdin` is empty, and `cwd` the folder of this process, if they are None. A process from
        which a fork would differ is started by `subprocess`.
        """
        if _must_be_executed(environ):
            return subprocess.Popen(
                [sys.executable, *arguments],
                env=environ,
                cwd=cwd,
                stdin=stdin or subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        request = {"argv": [*arguments], "environ": {**environ}, "cwd": str(cwd or Path.cwd())}
        with Path(os.devnull).open("rb") as empty:
            streams = [stream.fileno() for stream in (stdin or empty, stdout, stderr)]
            pid = int(self.call(request, streams))
        return ForkedProcess(self, arguments, pid)

    def call(self, request: Mapping[str, Any], streams: Sequence[int] = ()) -> Any:
        """Return the reply to a request."""
        with self._lock:
            if self._requests is None or self._owner != os.getpid():
                self._requests, self._owner = _start_server(), os.getpid()
            socket.send_fds(self._requests, [json.dumps(request).encode()], streams)
            reply = self._requests.recv(1000)
        if not reply:
            raise RuntimeError("the fork server has ended")
        return json.loads(reply)


def _start_server() -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")  # as a worker has them
    with theirs:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.support.fork_server", str(theirs.fileno())],
            cwd=ROOT,
            env={**os.environ, **threads, "PYTHONPATH": path},
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )

    def stop() -> None:
        ours.close()
        server.wait(10)

    atexit.register(stop)
    return ours


def _must_be_executed(environ: Mapping[str, str]) -> bool:
    """Decide whether a process would differ from a fork of the server: by other settings, code or network."""
    names = filter(_READ_AT_START, {**os.environ, **environ})
    folders = filter(None, environ.get("PYTHONPATH", "").split(os.pathsep))
    return (
        sys.platform != "linux"
        or any(environ.get(name) != os.environ.get(name) for name in names)
        or any(Path(folder, "headrace").is_dir() for folder in folders)
        or Path("/proc/thread-self/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
    )


class ForkedProcess:
    """A process of the server, with the methods of `subprocess.Popen`."""

    def __init__(self, server: ForkServer, arguments: Sequence[str], pid: int) -> None:
        self._server, self.args, self.pid = server, [*arguments], pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code; None while the process runs."""
        if self.returncode is None:
            self.returncode = self._server.call({"pid": self.pid})
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of the process, and return its exit code. Raises subprocess.TimeoutExpired."""
        deadline = time.monotonic() + timeout if timeout is not None else None
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                assert timeout is not None
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(_LOOK_SECONDS)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


#: The server of the tests of this process.
FORK_SERVER = ForkServer()


def start_python(
    arguments: Sequence[str], environ: Mapping[str, str], log: Path
) -> ForkedProcess | subprocess.Popen[bytes]:
    """Start `python ARGUMENTS...` with this environment and no input; its output goes to a log."""
    with log.open("ab") as output:
        return FORK_SERVER.start(arguments, environ, stdin=None, stdout=output, stderr=output)
