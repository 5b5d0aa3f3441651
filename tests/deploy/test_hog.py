"""The hog: a model that takes all the processors, memory, processes and disk it can, deployed on purpose.

    make deploy-test ARGS='-k hog -s'

It is served as docs/production/isolation.md says for a model that is not trusted: by the service `trial`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.deploy.stack import PENGUIN, Stack

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

HERE = Path(__file__).parent
LATENCY = (HERE / "latency.py").read_text()

#: What it is told to take, and as what a job that takes it may end.
DEEDS = {
    "processor": ["timeout"],
    "memory": ["crash"],
    "disk": ["permanent"],
    "processes": ["timeout"],
    "everything": ["timeout", "crash"],
}
#: How much slower another model's jobs may become.
FACTOR = 2.0
#: Seconds for which they are sent, without the hog and with it.
WINDOW = 20
#: Windows with the hog, whose five jobs take two minutes and more, in one of which it has to be so: where others
#: use this machine too, they disturb one or another.
WINDOWS = 3
#: Seconds within which its jobs have ended: what the hog leaves of its container's processor time is all that its
#: worker has to die with, and to be started anew, three times.
ENDED = 300
#: Seconds a new process may take on the host meanwhile.
USABLE = 2.0

SUBMIT = """
import sys
from headrace import Client, Settings
from headrace.settings import load_settings
client = Client(settings=load_settings(Settings))
print(*(client.submit("hog", {"take": deed}).id for deed in sys.argv[1:]))
"""


@pytest.fixture
def hog(stack: Stack) -> Iterator[Stack]:
    """The hog in the store and in `trial`, and the other workers with `churn` only."""
    shutil.copytree(HERE / "hog", stack.folder / "hog")
    trial = {
        "HEADRACE_SERVE": "churn",
        "HEADRACE_TRIAL": "hog",
        "HEADRACE_TRIAL_IMAGE": "headrace-hog",
        "HEADRACE_TRUST_MODULES": "hog",
    }
    (stack.folder / "hog" / "example.json").write_text('[{"take": "nothing"}]')
    stack("docker build -q -t headrace-hog hog")
    added = "headrace models add hog:Hog --name hog --example hog/example.json --time-limit 5"
    stack(added, env={"PYTHONPATH": "hog"})
    try:
        stack("docker-compose --profile trial up -d --scale worker=2", env=trial)
        stack.wait_for("all are ready", lambda: (stack.healthy(), stack.healthy("trial")) == (2, 1))
        yield stack
    finally:
        stack("docker-compose --profile trial rm --stop --force trial")
        shutil.rmtree(stack.folder / "models" / "hog")
        stack("docker-compose run --rm -T operator dead purge --model hog --yes")
        stack("docker-compose up -d --no-deps --scale worker=2 worker")
        stack.wait_for("two workers are ready", lambda: stack.healthy() == 2)


def p99(stack: Stack) -> float:
    """Milliseconds within which 99 of 100 jobs of `churn` end in a window."""
    took = sorted(json.loads(stack.python(LATENCY, "churn", str(WINDOW), json.dumps(PENGUIN))))
    return float(took[int(0.99 * len(took))])


def new_processes(until: float) -> list[float]:
    """Seconds that each of many new processes takes on the host."""
    took = []
    while time.monotonic() < until:
        began = time.monotonic()
        subprocess.run(["sh", "-c", "ls /"], check=True, capture_output=True)
        took.append(time.monotonic() - began)
        time.sleep(0.2)
    return took


def ends(stack: Stack, jobs: Sequence[str]) -> list[str]:
    """The reasons of these jobs' dead letters, once each has one."""

    def letters() -> dict[str, str]:
        listed = stack("docker-compose run --rm -T operator dead list --model hog --all --json")
        return {letter["id"]: letter["reason"] for letter in map(json.loads, listed.splitlines())}

    stack.wait_for("all of them are dead letters", lambda: letters().keys() >= set(jobs), seconds=ENDED)
    reasons = letters()
    return [reasons[job] for job in jobs]


def test_a_model_that_takes_everything_takes_nothing_from_the_others(hog: Stack):
    others = " ".join(name for one in ("redis", "worker", "flower", "caddy") for name in hog.containers(one))
    state = "docker inspect -f '{{.Id}} {{.RestartCount}} {{.State.StartedAt}} {{.State.OOMKilled}}' " + others
    before = hog(state)
    quiet = p99(hog)
    jobs = hog.python(SUBMIT, *DEEDS).split()
    with ThreadPoolExecutor(1) as pool:
        watched = pool.submit(new_processes, time.monotonic() + WINDOW)
        hogged = min(p99(hog) for _ in range(WINDOWS))
        slowest = max(watched.result())
    for reason, deed in zip(ends(hog, jobs), DEEDS, strict=True):
        assert reason in DEEDS[deed], deed
    told = {
        "p99 quiet, ms": round(quiet, 1),
        "p99 with the hog, ms": round(hogged, 1),
        "a new process on the host, s": round(slowest, 3),
    }
    print(json.dumps(told))
    assert hogged <= FACTOR * quiet, told
    assert slowest < USABLE, told
    assert hog(state) == before
