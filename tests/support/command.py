"""The `headrace` command, run as a user runs it: in a process, and on a terminal."""

from __future__ import annotations

import os
import subprocess
import sys


def headrace(*arguments: str, stdin: str | bytes = b"", **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; its standard streams as text."""
    done = subprocess.run(
        [sys.executable, "-m", "headrace.cli", *arguments],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        env={**os.environ, **environ},
        timeout=60,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
