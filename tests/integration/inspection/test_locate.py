"""A job without an outcome is found where it lies; one with an outcome tells how it came to it."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest
import redis
from celery import Celery

from headrace import AsyncClient, Client
from headrace.catalog.published import publish_contract
from headrace.inspection.timeline import Timeline
from headrace.wire.keys import Keys
from headrace_worker.transport.leases import Claim, ClaimLimits, LeaseKeys, Leases
from tests.support.answering_worker import CHURN
from tests.support.claim_models import AWAY, KILL, NOTHING, add, serving
from tests.support.stored_dead_letters import bury, letter

KEYS = Keys()
QUEUE = "predict.churn"


@pytest.fixture
def client(redis_url: str, server: redis.Redis):
    publish_contract(server, KEYS, CHURN)
    with Client(redis_url) as client:
        yield client


def explained(client: Client, job: str) -> Timeline:
    return client.job(job).explain()


def claim(server: redis.Redis, jobs: int) -> tuple[Leases, Claim]:
    leases = Leases(server, LeaseKeys(KEYS))
    taken = leases.claim("host/1/ab/1", [ClaimLimits(queue=QUEUE, jobs=jobs, bytes=10**6)], lasts_ms=60_000)
    assert isinstance(taken, Claim)
    return leases, taken


@pytest.mark.parametrize("own", [False, True], ids=["our ids", "ids of your own"])
def test_the_place_in_the_queue_is_told_by_how_many_go_before(client: Client, server: redis.Redis, own: bool):
    ids = [f"mine-{number}" for number in range(3000)] if own else None
    jobs = client.submit_many("churn", [{"age": 1}] * 3000, ids=ids, priority=9)
    urgent = client.submit("churn", {"age": 1})
    server.rpush(KEYS.isolated(QUEUE), "frame")
    for number in random.sample(range(3000), 20):
        step = jobs[number].explain().steps[-1]
        assert (step.kind, step.ahead) == ("waiting", number + 2)  # the lost one and the urgent one go first
    assert urgent.explain().steps[-1].ahead == 1


def test_a_job_is_found_among_many_in_a_moment(client: Client):
    jobs = client.submit_many("churn", [{"age": 1}] * 30_000)
    began = time.monotonic()
    assert jobs[15_000].explain().steps[-1].ahead == 15_000
    assert time.monotonic() - began < 1


def test_a_job_too_deep_to_be_found_is_still_queued(client: Client):
    jobs = client.submit_many("churn", [{"age": 1}] * 12_000, ids=[f"mine-{number}" for number in range(12_000)])
    found = jobs[-1].explain()
    assert (found.status, [step.kind for step in found.steps]) == ("queued", ["submitted"])
    assert found.note is not None
    assert "deep in its queue" in found.note


def test_a_claimed_job_runs_and_one_lost_with_its_worker_waits_to_run_again(client: Client, server: redis.Redis):
    job, *_ = client.submit_many("churn", [{"age": 1}] * 3)
    leases, taken = claim(server, 3)
    found = job.explain()
    assert (found.status, found.steps[-1].text) == (
        "running",
        "a worker has it, with 2 others (claim host/1/ab/1)",
    )
    leases.requeue_isolated(taken.lease, "crash", owner="host/1/ab")
    found = job.explain()
    assert [step.kind for step in found.steps] == ["submitted", "attempt", "waiting"]
    assert found.steps[1].text == "ran with 2 others on host/1/ab, in vain: its process was lost"
    assert found.status == "queued"


def test_a_delayed_job_says_when_it_is_due(client: Client, server: redis.Redis):
    job = client.submit("churn", {"age": 1}, delay=3600)
    assert job.explain().steps[-1].kind == "waiting"  # until a worker has looked at it
    _, taken = claim(server, 1)
    due = int(time.time() * 1000) + 3_600_000
    server.zadd(KEYS.delayed(QUEUE), {taken.frames[0]: due, b"other": due - 1})
    server.delete(KEYS.lease(taken.lease.name))
    last = job.explain().steps[-1]
    assert (last.kind, last.due_ms) == ("delayed", due)


def test_a_job_of_a_plain_celery_client_is_found_too(client: Client, redis_url: str):
    with Celery(broker=redis_url, backend=redis_url) as app:
        sent = app.send_task("headrace.predict", args=["churn", [{"age": 1}]], queue=QUEUE)
    found = explained(client, sent.id)
    assert (found.status, found.model, found.steps[-1].kind) == ("queued", "churn", "waiting")


def test_an_id_is_never_taken_for_a_part_of_another_or_of_an_instance(client: Client):
    client.submit("churn", {"age": 1}, id="abc")
    client.submit("churn", {"age": 1}, metadata={"id": "churn"}, id="x")
    for name in ("ab", "bc", "churn", "age"):
        assert explained(client, name).status == "unknown"


def test_a_user_who_may_not_look_into_queues_is_told_so(client: Client, server: redis.Redis, redis_url: str):
    job = client.submit("churn", {"age": 1})
    server.execute_command("ACL SETUSER short on >pw ~* &* +@all -zrangebyscore -hget -zscore")
    try:
        with Client(redis_url.replace("redis://", "redis://short:pw@")) as other:
            found = explained(other, job.id)
    finally:
        server.execute_command("ACL DELUSER short")
    assert found.status == "queued"
    assert found.note == "it has no outcome; where it lies is not for this Redis user to see"


def test_a_dead_letter_tells_its_history(client: Client, server: redis.Redis):
    name = bury(server, letter("a"))
    assert [step.kind for step in explained(client, name).steps] == ["ended", "dead letter"]


async def test_asyncio_tells_the_same(client: Client, redis_url: str):
    job = client.submit("churn", {"age": 1})
    async with AsyncClient(redis_url) as other:
        assert await other.job(job.id).explain() == job.explain()


def test_a_worker_tells_of_each_job_how_it_came_to_its_outcome(
    redis_url: str, server: redis.Redis, tmp_path: Path
):
    models = add(tmp_path, max_attempts=2, retry_delay=0.05)
    with serving("-c", "1", url=redis_url, models=models, folder=tmp_path), Client(redis_url) as client:
        good = client.submit("doubling", [1, NOTHING, 0])
        good.result(timeout=30)
        flaky = client.submit("doubling", [2, AWAY, time.time() + 0.2])
        killer = client.submit("doubling", [3, KILL, 0])
        flaky.outcome(timeout=30)
        killer.outcome(timeout=30)
        steps = good.explain().steps
        assert [step.kind for step in steps] == ["submitted", "claimed", "predicted", "ended"]
        moments = [step.at_ms or 0 for step in steps]
        assert moments == sorted(moments)
        assert (steps[1].claim_size, steps[2].version, steps[2].runtime, steps[2].rows) == (0, "1", "sklearn", 1)
        assert steps[1].worker is not None
        assert steps[1].worker.startswith("worker@")
        assert "attempt" in [step.kind for step in flaky.explain().steps]
        dead = killer.explain()
        assert [step.cause for step in dead.steps if step.kind == "attempt"] == ["crash", "crash"]
        assert [step.kind for step in dead.steps][-2:] == ["ended", "dead letter"]
        cancelled = client.submit("doubling", [4, NOTHING, 0], delay=60)
        cancelled.cancel()
        assert cancelled.explain().steps[-1].text == "cancelled"
    with Celery(broker=redis_url, backend=redis_url) as app:  # who knows nothing of ours reads it all the same
        known = app.AsyncResult(good.id)
        assert known.get(timeout=5)["predictions"] == [2]
        assert known.worker == steps[1].worker
    stored = server.get(KEYS.result(good.id))
    assert isinstance(stored, bytes)
    assert len(json.dumps(json.loads(stored)["execution"], separators=(",", ":"))) < 120
