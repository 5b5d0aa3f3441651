"""Runs the `headrace` command in a process, as a user does."""

from __future__ import annotations

import os
import subprocess
import tempfile

from tests.support.forked_processes import FORK_SERVER


def headrace(*arguments: str, stdin: str | bytes = b"", **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; return its exit code and its standard streams as text."""
    command = ["-m", "headrace.cli", *arguments]
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        given.write(stdin.encode() if isinstance(stdin, str) else stdin)
        given.seek(0)
        process = FORK_SERVER.start(command, {**os.environ, **environ}, stdin=given, stdout=output, stderr=errors)
        try:
            code = process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(command, code, output.read().decode(), errors.read().decode())
