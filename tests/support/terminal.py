"""A terminal that a command runs on."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time


class Terminal:
    """A process whose standard streams are a terminal of 100 columns, its controlling one."""

    def __init__(self, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "headrace.cli", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  # Ctrl-C needs it
        )
        os.close(theirs)
        self.shown = ""

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def read(self, until: str | None = None, seconds: float = 30) -> str:
        """Read until a text is shown, or until the process ends."""
        deadline = time.monotonic() + seconds
        while until is None or until not in self.shown:
            assert time.monotonic() < deadline, self.shown
            if not select.select([self._ours], [], [], 0.1)[0]:
                continue
            try:
                got = os.read(self._ours, 65536)
            except OSError:  # Linux's way to say that the other end is closed
                got = b""
            if not got:
                assert until is None, self.shown
                break
            self.shown += got.decode()
        return self.shown

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        os.close(self._ours)
