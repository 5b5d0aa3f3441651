"""Runs the `headrace` command in a process, as a user does."""

from __future__ import annotations

import os
import subprocess
import sys


def headrace(*arguments: str, stdin: str | bytes = b"", **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; return its exit code and its standard streams as text."""
    result = subprocess.run(
        [sys.executable, "-m", "headrace.cli", *arguments],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        env={**os.environ, **environ},
        timeout=60,
    )
    return subprocess.CompletedProcess(
        result.args, result.returncode, result.stdout.decode(), result.stderr.decode()
    )
