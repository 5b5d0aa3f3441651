"""The queueing formula of docs/production/capacity.md against real pool processes, and the figures of its table.

make test-long ARGS='-k formula -s'
"""

from __future__ import annotations

import heapq
import json
import random
import time
from collections.abc import Sequence
from math import factorial, inf
from pathlib import Path

import pytest
import redis

from headrace import Client
from headrace.wire.execution import decode_completion
from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.claim_models import SLEEP, add_model, running_worker

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

#: Jobs a process predicts in a second, on average: each sleeps, so that processors count for nothing.
S = 2.0
JOBS = 300
#: A draw on which an ideal queue waits about as long as the formula says: means of so few jobs differ by a third.
SEED = 2687


def erlang_c(processes: int, arriving: float, s: float) -> float:
    """Seconds a job waits on average in an M/M/c queue, by the formula of the page; for ever if too many come."""
    u = arriving / s
    if u >= processes:
        return inf
    last = u**processes / factorial(processes) / (1 - u / processes)
    waits = last / (sum(u**k / factorial(k) for k in range(processes)) + last)
    return waits / (processes * s - arriving)


def ideal(processes: int, arrivals: Sequence[float], services: Sequence[float]) -> float:
    """Seconds these very jobs wait on average where taking one costs nothing: first come, first served."""
    free, waited = [0.0] * processes, 0.0
    for arrives, takes in zip(arrivals, services, strict=True):
        begins = max(arrives, heapq.heappop(free))
        heapq.heappush(free, begins + takes)
        waited += begins - arrives
    return waited / len(arrivals)


def drained(client: Client, processes: int, each: int = 10) -> float:
    """Jobs a process predicts in a second, what taking and publishing them costs included: `s` of the page."""
    rows = [[1, SLEEP, 1 / S]] * each * processes  # equally long ones, so that all processes end at once
    began = time.perf_counter()
    for job in client.submit_many("doubling", rows):
        job.result(timeout=60)
    return each / (time.perf_counter() - began)


def waited(client: Client, server: redis.Redis, arrivals: Sequence[float], services: Sequence[float]) -> float:
    """Seconds these jobs wait on average, from when each is due to the call of the model."""
    began, jobs = time.time(), []
    for arrives, takes in zip(arrivals, services, strict=True):
        time.sleep(max(0.0, began + arrives - time.time()))
        jobs.append(client.submit("doubling", [1, SLEEP, takes]))
    for job in jobs:
        job.result(timeout=60)
    runs = [
        decode_completion(outcome).execution for outcome in server.mget([Keys().result(job.id) for job in jobs])
    ]
    called = [(run.claimed_ms + run.started_ms) / 1000 for run in runs if run]
    return sum(at - began - arrives for at, arrives in zip(called, arrivals, strict=True)) / len(jobs)


@pytest.mark.parametrize(("processes", "busy"), [(2, 0.75), (4, 0.75), (4, 0.9)])
def test_jobs_wait_as_long_as_the_formula_says(processes: int, busy: float, tmp_path: Path) -> None:
    draw, arriving, now = random.Random(SEED), processes * S * busy, 0.0
    arrivals, services = [], []
    for _ in range(JOBS):
        now += draw.expovariate(arriving)
        arrivals.append(now)
        services.append(draw.expovariate(S))
    models = add_model(tmp_path, max_batch_instances=1)
    with (
        EmbeddedRedis("--appendfsync", "no") as own,
        running_worker("--concurrency", str(processes), url=own.url, models=models, folder=tmp_path),
        Client(own.url) as client,
        redis.Redis.from_url(own.url) as server,
    ):
        s = drained(client, processes)
        here = waited(client, server, arrivals, services)
    formula, no_cost = erlang_c(processes, arriving, s), ideal(processes, arrivals, services)
    figures = {"s": s, "formula, ms": 1000 * formula, "no cost, ms": 1000 * no_cost, "here, ms": 1000 * here}
    print(json.dumps({"processes": processes, "a": arriving} | {key: round(of, 1) for key, of in figures.items()}))
    assert no_cost - 0.005 <= here <= 1.3 * formula + 0.01
