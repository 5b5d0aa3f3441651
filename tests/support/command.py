"""Runs the `headrace` command in a process, as a user does."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from tests.support.forked_processes import FORK_SERVER


def headrace(
    *arguments: object, stdin: str | bytes = b"", cwd: Path | None = None, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; return its exit code and its standard streams as text."""
    command = ["-m", "headrace.cli", *map(str, arguments)]
    with (
        tempfile.TemporaryFile() as rows,
        tempfile.TemporaryFile() as output,
        tempfile.TemporaryFile() as errors,
    ):
        rows.write(stdin.encode() if isinstance(stdin, str) else stdin)
        rows.seek(0)
        process = FORK_SERVER.start(
            command, {**os.environ, **environ}, stdin=rows, stdout=output, stderr=errors, cwd=cwd
        )
        try:
            code = process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(command, code, output.read().decode(), errors.read().decode())
