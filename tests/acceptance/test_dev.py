"""`headrace dev` runs the stack on free ports until Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
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

from tests.support.waiting import wait_until

LOGS = {"worker.log", "flower.log", "gateway.log"}
COMMAND = [sys.executable, "-m", "headrace.cli", "dev"]
PLAIN_CELERY = """
import sys
from celery import Celery
URL = sys.argv[1]
print(Celery(broker=URL, backend=URL).send_task(
    "headrace.predict", args=["churn", [{"age": 41, "plan": "gold"}]], queue="predict.churn"
).get(timeout=20))
"""


class Dev(NamedTuple):
    """A running `headrace dev`, with the addresses from its output."""

    process: subprocess.Popen[str]
    redis: str
    flower: str
    api: str
    folder: Path
    welcome: str


def start(temporary: Path, *options: str) -> Dev:
    """Start the command; return once it has printed its addresses."""
    process = subprocess.Popen(
        [*COMMAND, *options],
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    welcome = ""
    assert process.stdout is not None
    for line in process.stdout:
        welcome += line
        if "Ctrl-C stops" in line:
            break
    matches = [re.search(rf"  {name} +(\S+)\n", welcome) for name in ("Redis", "Flower", "API", "logs")]
    assert all(matches), welcome
    redis, flower, api, logs = (match[1] for match in matches if match)
    return Dev(process, redis, flower, api, Path(logs), welcome)


def stop(dev: Dev) -> str:
    """Press Ctrl-C twice; return the rest of the output."""
    dev.process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    dev.process.send_signal(signal.SIGINT)
    output, _ = dev.process.communicate(timeout=60)
    return output


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def dev(temporary: Path) -> Iterator[Dev]:
    """Start a stack while its preferred ports are in use; stop it with Ctrl-C and check that nothing remains."""
    with contextlib.ExitStack() as servers:
        for port in (5555, 6390, 8080):
            with contextlib.suppress(OSError):  # the port is in use already
                servers.enter_context(socket.create_server(("127.0.0.1", port)))
        dev = start(temporary)
        yield dev
        submit(dev)
        wait_until(lambda: '"headrace.jobs"' in (dev.folder / "worker.log").read_text())
        output = stop(dev)
        assert dev.process.returncode == 0, output
        assert output.endswith(f"stopping ...\nthe logs are in {dev.folder}\n")
        assert "  1 instance  success  " in output
        assert list(temporary.iterdir()) == [dev.folder]
        assert {path.name for path in dev.folder.iterdir()} == LOGS
        wait_until_unused(temporary)


def wait_until_unused(folder: Path) -> None:
    deadline = time.monotonic() + 10
    while remaining := processes_with(folder):
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


def test_a_plain_celery_client_gets_a_prediction(dev: Dev):
    completed = subprocess.run(
        [sys.executable, "-c", PLAIN_CELERY, dev.redis], capture_output=True, text=True, timeout=60
    )
    assert re.fullmatch(r"\{'model': 'churn', 'version': '1', 'predictions': \[[01]\]\}\n", completed.stdout), (
        completed.stderr
    )


def submit(dev: Dev) -> subprocess.CompletedProcess[str]:
    """Run the commands that the output names."""
    commands = re.search(r"  (export .*)\n  headrace (submit .*)\n", dev.welcome)
    assert commands
    command = f"{commands[1]}; {sys.executable} -m headrace.cli {commands[2]}"
    return subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, timeout=60)


def test_the_commands_in_its_output_work(dev: Dev):
    completed = submit(dev)
    assert completed.returncode == 0, completed.stderr
    assert re.search(r"\b[01]\b", completed.stdout)


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_the_curl_line_in_its_output_returns_a_prediction(dev: Dev):
    (line,) = re.findall(r"^  (curl .*)$", dev.welcome, re.MULTILINE)
    completed = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, timeout=60)
    answer = json.loads(completed.stdout)
    assert answer["predictions"] in ([0], [1])
    assert (answer["model"], answer["version"]) == ("churn", "1")


def test_it_uses_other_ports_when_its_preferred_ones_are_in_use(dev: Dev):
    assert not dev.redis.endswith(":6390/0")
    assert not dev.flower.endswith(":5555")
    assert not dev.api.endswith(":8080")


def test_flower_answers(dev: Dev):
    with urllib.request.urlopen(dev.flower + "/workers", timeout=20) as response:
        assert "Flower" in response.read().decode()


def test_the_logs_are_in_the_folder_it_prints(dev: Dev):
    assert {path.name for path in dev.folder.glob("*.log")} == LOGS


def test_each_step_of_the_start_has_a_line(dev: Dev):
    steps = re.findall(r"^(\w+ .*?) \.\.\.$", dev.welcome, re.MULTILINE)
    assert [re.sub(r"(port|models of) \S+", r"\1 X", step) for step in steps] == [
        "loading libraries",
        "starting Redis on port X",
        "training demonstration models",
        "starting a worker for the models of X",
        "starting Flower on port X",
        "starting the HTTP API on port X",
    ]


@pytest.mark.parametrize("option", ["--redis-port", "--flower-port", "--gateway-port"])
def test_a_requested_port_in_use_is_an_error_of_one_line(option: str):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        completed = subprocess.run([*COMMAND, option, str(port)], capture_output=True, text=True, timeout=60)
    assert completed.returncode == 1
    assert completed.stderr == f"headrace: port {port} is in use; give another with {option}\n"


def test_a_child_that_dies_ends_the_stack_with_an_error(tmp_path: Path):
    dev = start(tmp_path, "--concurrency", "1")
    [worker] = [
        int(process.name)
        for process in Path("/proc").iterdir()
        if process.name.isdigit() and is_worker(process, dev.process.pid)
    ]
    os.kill(worker, signal.SIGKILL)
    output, _ = dev.process.communicate(timeout=60)
    assert dev.process.returncode == 1
    assert "headrace: the worker exited with code -9; last lines" in output
    assert "Traceback" not in output
    (folder,) = tmp_path.glob("headrace-*")
    assert {path.name for path in folder.iterdir()} == LOGS
    wait_until_unused(tmp_path)


@pytest.mark.parametrize("step", ["loading libraries", "training digits", "starting a worker", "starting Flower"])
def test_ctrl_c_during_the_start_exits_130_and_leaves_no_process(tmp_path: Path, step: str):
    process = subprocess.Popen(
        COMMAND,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    shown = ""
    for line in process.stdout:
        shown += line
        if line.strip().startswith(step):
            break
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, shown + output
    assert output.endswith("headrace: interrupted\n")
    assert "Traceback" not in output
    remaining = {path.name for folder in tmp_path.glob("headrace-*") for path in folder.iterdir()}
    assert remaining <= LOGS
    wait_until_unused(tmp_path)


def is_worker(process: Path, parent: int) -> bool:
    with contextlib.suppress(OSError):
        fields = (process / "stat").read_text().rpartition(")")[2].split()
        return int(fields[1]) == parent and b"\0-A\0headrace_worker\0" in (process / "cmdline").read_bytes()
    return False
