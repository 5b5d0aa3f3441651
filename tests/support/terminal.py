"""A pseudo-terminal on which a test runs the `headrace` command."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import termios
import time

from tests.support.forked_processes import FORK_SERVER


class Terminal:
    """A `headrace` process on a terminal of `columns`, which is its controlling terminal."""

    def __init__(self, *arguments: str, columns: int = 100) -> None:
        self._controller, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        environ = {**os.environ, "TERM": "xterm"}
        with os.fdopen(terminal, "r+b", buffering=0) as stream:
            self.process = FORK_SERVER.start(
                ["-m", "headrace.cli", *arguments], environ, stdin=stream, stdout=stream, stderr=stream
            )
        self.output = ""

    def type(self, keys: bytes) -> None:
        """Type keys on the terminal."""
        os.write(self._controller, keys)

    def read(self, until: str | None = None, seconds: float = 30) -> str:
        """Return everything shown so far, once a text is shown or, for None, the process has ended."""
        deadline = time.monotonic() + seconds
        while until is None or until not in self.output:
            assert time.monotonic() < deadline, self.output
            if not select.select([self._controller], [], [], 0.1)[0]:
                continue
            try:
                output = os.read(self._controller, 65536)
            except OSError:  # on Linux, the error of a terminal that the process has closed
                output = b""
            if not output:
                assert until is None, self.output
                break
            self.output += output.decode()
        return self.output

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        os.close(self._controller)
