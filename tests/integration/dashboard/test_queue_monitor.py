"""While the thread that counts events is dead or blocked, Flower says so and no page waits for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.connections import free_port
from tests.support.waiting import wait_until

#: Starts Flower with a thread that ends, or that blocks and is late soon.
SCRIPT = """
import sys, threading
from headrace.monitor.overview import Monitor
from headrace_worker.telemetry import loops

def end(monitor, until):
    raise SystemExit

def block(monitor, until):
    threading.Event().wait()

loops.LATE_SECONDS = 1.0
Monitor.listen = {"end": end, "block": block}[sys.argv[1]]
sys.argv = ["celery", "-A", "headrace_worker.dashboard", "flower", "--address=127.0.0.1", f"--port={sys.argv[2]}"]
from celery.__main__ import main
main()
"""


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], int]]:
    """A function that starts Flower with a fault, and returns its port."""
    processes: list[subprocess.Popen[bytes]] = []
    with EmbeddedRedis("--appendfsync", "no") as server:

        def start(fault: str) -> int:
            port = free_port()
            environ = os.environ | {"HEADRACE_REDIS_URL": server.url, "HEADRACE_FLOWER_OPEN": "true"}
            with (tmp_path / "log").open("wb") as log:
                command = [sys.executable, "-c", SCRIPT, fault, str(port)]
                processes.append(subprocess.Popen(command, env=environ, cwd=tmp_path, stdout=log, stderr=log))
            wait_until(lambda: get(port, "/healthcheck")[0] == 503, 30, (tmp_path / "log").read_text)
            return port

        yield start
        for process in processes:
            process.terminate()
            process.wait(10)


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ("end", "the loop `queue-monitor` has ended; restart this process"),
        ("block", "the loop `queue-monitor` has not completed a round for"),
    ],
)
def test_flower_is_unhealthy_and_its_queues_page_says_why(
    start: Callable[[str], int], fault: str, problem: str
) -> None:
    port = start(fault)
    assert problem in get(port, "/healthcheck")[1]
    status, body = get(port, "/api/queues")
    assert (status, problem in json.loads(body)["error"]) == (503, True)
    assert 'headrace_loop_up{loop="queue-monitor"} 0.0' in get(port, "/metrics")[1]
