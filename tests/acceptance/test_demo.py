"""`headrace demo` runs from start to end on any machine, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "headrace.cli", "demo"]


@pytest.fixture
def environ(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment with its own temporary folder; fail if files or processes remain in it after the test."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environ = {**os.environ, "TMPDIR": str(temporary), "COLUMNS": "100"}
    yield environ
    assert list(temporary.iterdir()) == []
    deadline = time.monotonic() + 5
    while remaining := processes_with(temporary):
        assert time.monotonic() < deadline, remaining
        time.sleep(0.05)


def processes_with(folder: Path) -> list[str]:
    """Return the commands of processes that have the folder as TMPDIR."""
    commands = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if f"TMPDIR={folder}".encode() in (process / "environ").read_bytes():
                commands.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return commands


def check_output(output: str) -> None:
    for step in ("1. Train three models", "2. Start Redis and a worker", "3. Predict patients.csv: 11,400 rows"):
        assert step in output
    assert re.search(r"11,400 rows in [\d.]+ s, 0 failed", output)
    assert re.search(r"mean radius +[\d.]+, mean texture +[\d.]+  ->  (benign|malignant)", output)
    assert re.search(r"a single row, with client.predict: (benign|malignant)", output)
    assert re.search(r"\$ curl http://127.0.0.1:\d+/v1/models/churn:predict ", output)
    assert re.search(r'   \{.*"predictions": ?\[[01]\].*\}', output)
    assert "all 11,400 equal" in output
    assert re.search(r"All good, in [\d.]+ s. Next steps:", output)
    assert "Traceback" not in output


def without_redis(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a machine without a Redis server on PATH."""
    return {**environ, "PATH": "/nowhere"}


def test_without_a_terminal_and_without_redis_on_path_it_prints_lines(
    environ: dict[str, str],
):
    completed = subprocess.run(COMMAND, env=without_redis(environ), capture_output=True, text=True, timeout=150)
    assert completed.returncode == 0, completed.stderr
    assert completed.stdout == ""
    assert "\r" not in completed.stderr
    check_output(completed.stderr)


def test_on_a_terminal_it_shows_a_progress_bar_and_keeps_the_files_on_request(
    environ: dict[str, str], tmp_path: Path
):
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "--keep", str(tmp_path / "kept")], env=environ, stdin=follower, stdout=follower, stderr=follower
    )
    os.close(follower)
    output = read_all(leader, process)
    assert process.returncode == 0, output
    check_output(output)
    assert "\r" in output.replace("\r\n", "\n")
    assert (tmp_path / "kept" / "predicted.csv").read_text().count("\n") == 11_401
    assert sorted(path.name for path in (tmp_path / "kept" / "models").iterdir()) == ["churn", "digits", "tumour"]


def read_all(terminal: int, process: subprocess.Popen[bytes]) -> str:
    output, deadline = b"", time.monotonic() + 150
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                output += os.read(terminal, 65536)
            except OSError:  # the process has closed the terminal
                break
    os.close(terminal)
    process.wait(20)
    return output.decode()


@pytest.mark.parametrize(
    ("number", "step", "seconds"),
    # The last step takes less than a tenth of a second.
    [(signal.SIGINT, "1. Train", 0.5), (signal.SIGTERM, "2. Start", 0.5), (signal.SIGINT, "3. Predict", 0.0)],
)
def test_an_interrupt_in_any_step_ends_it_and_leaves_nothing(
    environ: dict[str, str], number: signal.Signals, step: str, seconds: float
):
    process = subprocess.Popen(COMMAND, env=environ, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    with process.stderr:
        output = ""
        for line in process.stderr:
            output += line
            if line.startswith(step):
                time.sleep(seconds)  # into the step
                process.send_signal(number)
                break
        process.send_signal(number)  # a second interrupt must not disturb the first
        output += process.stderr.read()
    assert process.wait(60) == 130, output
    assert output.endswith("headrace: interrupted\n")
    assert "Traceback" not in output
