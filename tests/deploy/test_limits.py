"""A worker in a container takes the cores and the memory of the container, not those of the machine.

Needs a Docker engine and docker-compose, as the drills.
"""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.deploy.stack import Stack

pytestmark = pytest.mark.long

_PRINT = (
    "import json; from headrace_worker.app import app; from headrace_worker.container import read_memory_limit; "
    "print(json.dumps([app.conf.worker_concurrency, read_memory_limit()]))"
)


def limits_inside(*options: str) -> tuple[int, int | None]:
    """Return the number of pool processes, and the bytes of memory, that a worker in a container takes."""
    command = ("docker", "run", "--rm", "--network", "none", *options, "--entrypoint", "python", "headrace-worker")
    printed = subprocess.run([*command, "-c", _PRINT], capture_output=True, text=True, check=True).stdout
    processes, memory = json.loads(printed.splitlines()[-1])
    return processes, memory


@pytest.mark.parametrize(("cpus", "processes"), [("0.5", 1), ("1", 1), ("1.5", 2)])
def test_a_worker_has_a_process_for_each_core_of_its_container(stack: Stack, cpus: str, processes: int) -> None:
    assert limits_inside("--cpus", cpus)[0] == processes


def test_a_worker_knows_the_memory_of_its_container(stack: Stack) -> None:
    assert limits_inside("--memory", "512m")[1] == 512 * 2**20
