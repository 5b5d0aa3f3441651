"""`headrace dev`: a stack that stays up until Ctrl-C, on addresses that are free."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

COMMAND = [sys.executable, "-m", "headrace.cli", "dev"]
DESIGN = """
import sys
from celery import Celery
URL = sys.argv[1]
print(Celery(broker=URL, backend=URL).send_task(
    "headrace.predict", args=["churn", [{"age": 41, "plan": "gold"}]], queue="predict.churn"
).get(timeout=20))
"""


class Dev(NamedTuple):
    process: subprocess.Popen[str]
    redis: str
    flower: str
    folder: Path
    welcome: str


def start(temporary: Path, *options: str) -> Dev:
    """The command once it has said its welcome."""
    process = subprocess.Popen(
        [*COMMAND, *options],
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = ""
    assert process.stdout is not None
    for line in process.stdout:
        said += line
        if line.startswith("Ctrl-C"):
            break
    found = [re.search(rf"  {name} +(\S+)\n", said) for name in ("Redis", "Flower", "logs")]
    assert all(found), said
    redis, flower, logs = (match[1] for match in found if match)
    return Dev(process, redis, flower, Path(logs), said)


def stop(dev: Dev) -> str:
    """Ctrl-C, twice; what it said then."""
    dev.process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    dev.process.send_signal(signal.SIGINT)
    said, _ = dev.process.communicate(timeout=60)
    return said


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def dev(temporary: Path) -> Iterator[Dev]:
    """A stack, with other servers on the ports it likes; both Ctrl-C are part of the test."""
    with contextlib.ExitStack() as taken:
        for port in (5555, 6390):
            with contextlib.suppress(OSError):  # someone else's, which is as good
                taken.enter_context(socket.create_server(("127.0.0.1", port)))
        dev = start(temporary)
        yield dev
        said = stop(dev)
        assert dev.process.returncode == 0, said
        assert said.endswith("stopping ...\n")
        assert list(temporary.iterdir()) == []
        wait_until_unused(temporary)


def wait_until_unused(folder: Path) -> None:
    deadline = time.monotonic() + 10
    while left := using(folder):
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


def test_the_plain_celery_snippet_of_the_design_gets_a_prediction(dev: Dev):
    done = subprocess.run([sys.executable, "-c", DESIGN, dev.redis], capture_output=True, text=True, timeout=60)
    assert re.fullmatch(r"\{'model': 'churn', 'version': '1', 'predictions': \[[01]\]\}\n", done.stdout), (
        done.stderr
    )


def test_what_it_tells_one_to_type_works(dev: Dev):
    typed = re.search(r"  (export .*)\n  headrace (submit .*)\n", dev.welcome)
    assert typed
    command = f"{typed[1]}; {sys.executable} -m headrace.cli {typed[2]}"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\b[01]\b", done.stdout)


def test_other_ports_are_taken_where_those_it_likes_are(dev: Dev):
    assert not dev.redis.endswith(":6390/0")
    assert not dev.flower.endswith(":5555")


def test_flower_answers(dev: Dev):
    with urllib.request.urlopen(dev.flower + "/workers", timeout=20) as answer:
        assert "Flower" in answer.read().decode()


def test_the_logs_are_where_it_says(dev: Dev):
    assert {path.name for path in dev.folder.glob("*.log")} == {"worker.log", "flower.log"}


def test_a_port_asked_for_that_is_taken_is_one_sentence(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run([*COMMAND, "--flower-port", str(port)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == f"headrace: port {port} is taken; give another with --flower-port\n"


def test_a_child_that_dies_ends_the_whole_in_words(tmp_path: Path):
    dev = start(tmp_path, "--concurrency", "1")
    [worker] = [
        int(process.name)
        for process in Path("/proc").iterdir()
        if process.name.isdigit() and is_worker(process, dev.process.pid)
    ]
    os.kill(worker, signal.SIGKILL)
    said, _ = dev.process.communicate(timeout=60)
    assert dev.process.returncode == 1
    assert "headrace: the worker ended with exit code -9; its last lines" in said
    assert "Traceback" not in said
    assert list(tmp_path.glob("headrace-*")) == []
    wait_until_unused(tmp_path)


def is_worker(process: Path, parent: int) -> bool:
    with contextlib.suppress(OSError):
        about = (process / "stat").read_text().rpartition(")")[2].split()
        return int(about[1]) == parent and b"\0-A\0headrace_worker\0" in (process / "cmdline").read_bytes()
    return False
