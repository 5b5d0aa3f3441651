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

#: Mean number of jobs that a process predicts in a second. Each job sleeps, so processors do not matter.
SERVICE_RATE = 2.0
JOBS = 300
#: A seed for which the waits in an ideal queue are close to the formula: the mean of 300 jobs varies by a third.
SEED = 2687


def erlang_c(processes: int, arrival_rate: float, service_rate: float) -> float:
    """Return the mean wait in an M/M/c queue in seconds, by the formula of the page; infinite if overloaded."""
    load = arrival_rate / service_rate
    if load >= processes:
        return inf
    last = load**processes / factorial(processes) / (1 - load / processes)
    wait_probability = last / (sum(load**k / factorial(k) for k in range(processes)) + last)
    return wait_probability / (processes * service_rate - arrival_rate)


def simulate_wait(processes: int, arrivals: Sequence[float], durations: Sequence[float]) -> float:
    """Return the mean wait of these jobs in seconds, if claiming cost nothing: first come, first served."""
    free_at, wait = [0.0] * processes, 0.0
    for arrival, duration in zip(arrivals, durations, strict=True):
        start = max(arrival, heapq.heappop(free_at))
        heapq.heappush(free_at, start + duration)
        wait += start - arrival
    return wait / len(arrivals)


def measure_service_rate(client: Client, processes: int, jobs: int = 10) -> float:
    """Return the jobs a process predicts in a second, including claiming and publishing: `s` of the page."""
    rows = [[1, SLEEP, 1 / SERVICE_RATE]] * jobs * processes  # of equal length, so that all processes end together
    started_at = time.perf_counter()
    for job in client.submit_many("doubling", rows):
        job.result(timeout=60)
    return jobs / (time.perf_counter() - started_at)


def measure_wait(
    client: Client, server: redis.Redis, arrivals: Sequence[float], durations: Sequence[float]
) -> float:
    """Return the mean wait of these jobs in seconds, from the arrival of each to the call of the model."""
    started_at, jobs = time.time(), []
    for arrival, duration in zip(arrivals, durations, strict=True):
        time.sleep(max(0.0, started_at + arrival - time.time()))
        jobs.append(client.submit("doubling", [1, SLEEP, duration]))
    for job in jobs:
        job.result(timeout=60)
    executions = [
        decode_completion(outcome).execution for outcome in server.mget([Keys().result(job.id) for job in jobs])
    ]
    calls = [(execution.claimed_ms + execution.started_ms) / 1000 for execution in executions if execution]
    return sum(call - started_at - arrival for call, arrival in zip(calls, arrivals, strict=True)) / len(jobs)


@pytest.mark.parametrize(("processes", "busy"), [(2, 0.75), (4, 0.75), (4, 0.9)])
def test_jobs_wait_as_long_as_the_formula_says(processes: int, busy: float, tmp_path: Path) -> None:
    chance, arrival_rate, now = random.Random(SEED), processes * SERVICE_RATE * busy, 0.0
    arrivals, durations = [], []
    for _ in range(JOBS):
        now += chance.expovariate(arrival_rate)
        arrivals.append(now)
        durations.append(chance.expovariate(SERVICE_RATE))
    models = add_model(tmp_path, max_batch_instances=1)
    with (
        EmbeddedRedis("--appendfsync", "no") as embedded,
        running_worker("--concurrency", str(processes), url=embedded.url, models=models, folder=tmp_path),
        Client(embedded.url) as client,
        redis.Redis.from_url(embedded.url) as server,
    ):
        service_rate = measure_service_rate(client, processes)
        measured = measure_wait(client, server, arrivals, durations)
    formula = erlang_c(processes, arrival_rate, service_rate)
    no_cost = simulate_wait(processes, arrivals, durations)
    figures = {"s": service_rate} | {
        f"{name}, ms": 1000 * wait
        for name, wait in (("formula", formula), ("no cost", no_cost), ("here", measured))
    }
    rounded = {name: round(figure, 1) for name, figure in figures.items()}
    print(json.dumps({"processes": processes, "a": arrival_rate} | rounded))
    assert no_cost - 0.005 <= measured <= 1.3 * formula + 0.01
