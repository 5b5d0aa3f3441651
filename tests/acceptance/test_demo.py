"""`headrace demo`: the main job from start to end, on any machine, leaving nothing behind."""

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
    """An environment whose temporary folder is the test's own; nothing may be left in it, or running with it."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environ = {**os.environ, "TMPDIR": str(temporary), "COLUMNS": "100"}
    yield environ
    assert list(temporary.iterdir()) == []
    deadline = time.monotonic() + 5
    while left := using(temporary):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def using(folder: Path) -> list[str]:
    """The commands of processes that have the folder in their environment."""
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if f"TMPDIR={folder}".encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def check_story(said: str) -> None:
    for step in ("1. Train three models", "2. Start Redis and a worker", "3. Predict patients.csv: 11,400 rows"):
        assert step in said
    assert re.search(r"11,400 rows in [\d.]+ s, 0 failed", said)
    assert re.search(r"mean radius +[\d.]+, mean texture +[\d.]+  ->  (benign|malignant)", said)
    assert re.search(r"one alone, with client.predict: (benign|malignant)", said)
    assert "all 11,400 equal" in said
    assert re.search(r"All good, in [\d.]+ s. What to try next:", said)
    assert "Traceback" not in said


def without_redis(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a machine with no Redis of its own."""
    return {**environ, "PATH": "/nowhere"}


def test_without_a_terminal_and_without_a_redis_of_the_machine_it_tells_its_story_in_lines(
    environ: dict[str, str],
):
    done = subprocess.run(COMMAND, env=without_redis(environ), capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "\r" not in done.stderr
    check_story(done.stderr)


def test_on_a_terminal_it_shows_a_bar_and_keeps_the_files_one_asks_for(environ: dict[str, str], tmp_path: Path):
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "--keep", str(tmp_path / "kept")], env=environ, stdin=follower, stdout=follower, stderr=follower
    )
    os.close(follower)
    said = read_all(leader, process)
    assert process.returncode == 0, said
    check_story(said)
    assert "\r" in said.replace("\r\n", "\n")
    assert (tmp_path / "kept" / "predicted.csv").read_text().count("\n") == 11_401
    assert sorted(path.name for path in (tmp_path / "kept" / "models").iterdir()) == ["churn", "digits", "tumour"]


def read_all(terminal: int, process: subprocess.Popen[bytes]) -> str:
    said, deadline = b"", time.monotonic() + 150
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                said += os.read(terminal, 65536)
            except OSError:  # how a terminal says that nobody is left
                break
    os.close(terminal)
    process.wait(20)
    return said.decode()


@pytest.mark.parametrize(
    ("number", "step"),
    [(signal.SIGINT, "1. Train"), (signal.SIGTERM, "2. Start"), (signal.SIGINT, "3. Predict")],
)
def test_interrupted_anywhere_it_ends_and_leaves_nothing(
    environ: dict[str, str], number: signal.Signals, step: str
):
    process = subprocess.Popen(COMMAND, env=environ, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    with process.stderr:
        said = ""
        for line in process.stderr:
            said += line
            if line.startswith(step):
                time.sleep(0.5)  # into the step
                process.send_signal(number)
                break
        process.send_signal(number)  # an impatient person
        said += process.stderr.read()
    assert process.wait(60) == 130, said
    assert said.endswith("headrace: interrupted\n")
    assert "Traceback" not in said
