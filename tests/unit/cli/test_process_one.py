"""Commands as process 1 of a container, which no signal ends unless it handles it."""

from __future__ import annotations

import signal
import subprocess
import sys

#: Runs a command that believes to be process 1.
AS_PROCESS_ONE = "import os; os.getpid = lambda: 1; from headrace.cli import main; main()"


def test_a_command_that_waits_ends_at_sigterm_with_the_code_of_shells() -> None:
    command = [sys.executable, "-c", AS_PROCESS_ONE, "exporter", "--port", "0", "--url", "redis://127.0.0.1:1/0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as exporter:
        try:
            assert exporter.stderr is not None
            assert exporter.stderr.readline().startswith("metrics on http://127.0.0.1:")
            exporter.send_signal(signal.SIGTERM)
            assert exporter.wait(30) == 128 + signal.SIGTERM
        finally:
            exporter.kill()
