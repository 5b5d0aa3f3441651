"""A signal to a worker of the suite reaches its pool processes, of which each leads a process group."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import child_pids, signal_worker
from tests.support.waiting import wait_until

_MAIN = """
import os, time
if not os.fork():
    os.setpgid(0, 0)
os.write(1, b"started\\n")
time.sleep(20)
"""


@pytest.fixture
def main() -> Iterator[int]:
    """A process with a child that leads a group of its own."""
    command = [sys.executable, "-c", _MAIN]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        for _ in range(2):
            assert process.stdout.readline() == b"started\n"
        yield process.pid
        signal_worker(process.pid, signal.SIGKILL)


def read_state(pid: int) -> str:
    """Return the state of a process: T if it is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_all_processes_of_a_worker_are_stopped_and_continued(main: int) -> None:
    (child,) = child_pids(main)
    signal_worker(main, signal.SIGSTOP)
    wait_until(lambda: read_state(main) == read_state(child) == "T")
    signal_worker(main, signal.SIGCONT)
    wait_until(lambda: read_state(main) != "T" and read_state(child) != "T")
