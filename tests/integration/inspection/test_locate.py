"""Tests of `explain`: it finds a job without an outcome, and prints the history of a job with one."""

from __future__ import annotations

import json
import math
import random
import time
from pathlib import Path

import pytest
import redis
from celery import Celery

from headrace import AsyncClient, Client
from headrace.catalog.published import publish_contract
from headrace.inspection.timeline import Timeline
from headrace.wire.attempts import Attempt, encode_delayed, encode_queued_message
from headrace.wire.keys import Keys
from headrace_worker.transport.claims import Claim, ClaimLimits
from headrace_worker.transport.leases import Leases
from tests.support.answering_worker import CHURN
from tests.support.claim_models import KILL, NOTHING, UNREACHABLE, add_model, running_worker
from tests.support.stored_dead_letters import make_letter, store_letter

KEYS = Keys()
QUEUE = "predict.churn"


@pytest.fixture
def client(redis_url: str, server: redis.Redis):
    publish_contract(server, KEYS, CHURN)
    with Client(redis_url) as client:
        yield client


def explain(client: Client, job: str) -> Timeline:
    return client.job(job).explain()


def claim_jobs(server: redis.Redis, jobs: int) -> tuple[Leases, Claim]:
    leases = Leases(server, KEYS)
    claim = leases.claim("host/1/ab/1", [ClaimLimits(queue=QUEUE, jobs=jobs, bytes=10**6)], lease_ms=60_000)
    assert isinstance(claim, Claim)
    return leases, claim


@pytest.mark.parametrize("custom_ids", [False, True], ids=["ids by Headrace", "custom ids"])
def test_the_number_of_jobs_ahead_is_exact(client: Client, server: redis.Redis, custom_ids: bool):
    ids = [f"mine-{number}" for number in range(3000)] if custom_ids else None
    jobs = client.submit_many("churn", [{"age": 1}] * 3000, ids=ids, priority=9)
    urgent = client.submit("churn", {"age": 1})
    server.rpush(KEYS.isolated(QUEUE), "frame")
    for number in random.sample(range(3000), 20):
        step = jobs[number].explain().steps[-1]
        assert (step.kind, step.ahead) == ("waiting", number + 2)  # the isolated and the urgent job go first
    assert urgent.explain().steps[-1].ahead == 1


def test_the_search_of_a_job_counts_from_the_nearer_end_of_the_list(client: Client, server: redis.Redis):
    """Redis 6.2 walks to a positive index from the left, however near the right end it is."""
    jobs = client.submit_many("churn", [{"age": 1}] * 4000)
    with server.monitor() as monitor:
        jobs[10].explain()
        server.echo("end")
        lines = iter(lambda: monitor.next_command()["command"], "ECHO end")
        commands = [line.split() for line in lines]
    walked = [abs(int(arguments[2])) for arguments in commands if arguments[0] == "LINDEX"]
    assert len(walked) > 5
    assert sum(walked) < 3 * 4000


def test_a_job_is_found_among_30_000_by_a_binary_search(client: Client, server: redis.Redis):
    jobs = client.submit_many("churn", [{"age": 1}] * 30_000)
    server.config_resetstat()
    assert jobs[15_000].explain().steps[-1].ahead == 15_000
    calls = {command: stats["calls"] for command, stats in server.info("commandstats").items()}
    assert calls["cmdstat_lindex"] <= math.ceil(math.log2(30_000))
    assert calls["cmdstat_lrange"] <= 2  # the isolated jobs, and the neighbours of the position


def test_a_job_too_deep_to_be_found_is_still_queued(client: Client):
    jobs = client.submit_many("churn", [{"age": 1}] * 12_000, ids=[f"mine-{number}" for number in range(12_000)])
    timeline = jobs[-1].explain()
    assert (timeline.status, [step.kind for step in timeline.steps]) == ("waiting", ["submitted"])
    assert timeline.note is not None
    assert "deep in its queue" in timeline.note


def test_a_claimed_job_is_running_and_a_job_of_a_lost_worker_is_isolated(client: Client, server: redis.Redis):
    job, *_ = client.submit_many("churn", [{"age": 1}] * 3)
    leases, claim = claim_jobs(server, 3)
    timeline = job.explain()
    assert timeline.status == "running"
    assert timeline.steps[-1].text == "claimed by a worker with 2 other jobs (lease host/1/ab/1)"
    leases.requeue_isolated(claim.lease, "crash", owner="host/1/ab")
    timeline = job.explain()
    assert [step.kind for step in timeline.steps] == ["submitted", "attempt", "isolated"]
    assert timeline.steps[1].text == "attempt on host/1/ab with 2 other jobs failed: its process was lost"
    assert timeline.status == "waiting"


@pytest.mark.parametrize("is_forged", [False, True])
def test_only_attempts_that_a_worker_wrote_are_shown(client: Client, server: redis.Redis, is_forged: bool):
    job = client.submit("churn", {"age": 1}, id="mine")
    attempts = [Attempt(cause="error:Busy", owner="host/1/ab", at_ms=1, claim_size=1)] * 2
    tried = encode_queued_message(attempts, server.rpop(QUEUE))
    source = QUEUE if is_forged else KEYS.retried(QUEUE)[0]
    server.lpush(source, tried)
    kinds = [] if is_forged else ["attempt", "attempt"]
    assert [step.kind for step in job.explain().steps] == ["submitted", *kinds, "waiting"]
    claim_jobs(server, 1)
    assert [step.kind for step in job.explain().steps] == ["submitted", *kinds, "leased"]
    server.flushall()
    if not is_forged:
        server.zadd(KEYS.delayed(QUEUE), {encode_delayed(5, tried): 2e12})
        publish_contract(server, KEYS, CHURN)
        assert [step.kind for step in job.explain().steps if step.kind != "submitted"] == [*kinds, "delayed"]


def test_a_delayed_job_has_the_moment_it_is_due(client: Client, server: redis.Redis):
    job = client.submit("churn", {"age": 1}, delay=3600)
    assert job.explain().steps[-1].kind == "waiting"  # until a worker has claimed it
    _, claim = claim_jobs(server, 1)
    due = int(time.time() * 1000) + 3_600_000
    server.zadd(KEYS.delayed(QUEUE), {claim.queued_messages[0]: due, b"other": due - 1})
    server.delete(KEYS.lease(claim.lease.name))
    last = job.explain().steps[-1]
    assert (last.kind, last.due_ms) == ("delayed", due)


def test_a_job_of_a_plain_celery_client_is_found_too(client: Client, redis_url: str):
    with Celery(broker=redis_url, backend=redis_url) as app:
        sent = app.send_task("headrace.predict", args=["churn", [{"age": 1}]], queue=QUEUE)
    timeline = explain(client, sent.id)
    assert (timeline.status, timeline.model, timeline.steps[-1].kind) == ("waiting", "churn", "waiting")


def test_an_id_does_not_match_within_another_id_or_an_instance(client: Client):
    client.submit("churn", {"age": 1}, id="abc")
    client.submit("churn", {"age": 1}, metadata={"id": "churn"}, id="x")
    for name in ("ab", "bc", "churn", "age"):
        assert explain(client, name).status == "unknown"


def test_a_user_who_may_not_search_queues_gets_a_note(client: Client, server: redis.Redis, redis_url: str):
    job = client.submit("churn", {"age": 1})
    server.execute_command("ACL SETUSER short on >pw ~* &* +@all -zrangebyscore -hget -zscore")
    try:
        with Client(redis_url.replace("redis://", "redis://short:pw@")) as other:
            timeline = explain(other, job.id)
    finally:
        server.execute_command("ACL DELUSER short")
    assert timeline.status == "waiting"
    assert timeline.note == "it has no outcome, and this Redis user may not search the queues for it"


def test_a_dead_letter_has_its_history(client: Client, server: redis.Redis):
    name = store_letter(server, make_letter("a"))
    assert [step.kind for step in explain(client, name).steps] == ["outcome", "dead letter"]


async def test_the_asyncio_client_returns_the_same_timeline(client: Client, redis_url: str):
    job = client.submit("churn", {"age": 1})
    async with AsyncClient(redis_url) as other:
        assert await other.job(job.id).explain() == job.explain()


def test_a_worker_records_the_execution_of_each_job(redis_url: str, server: redis.Redis, tmp_path: Path):
    models = add_model(tmp_path, max_attempts=2, retry_delay=0.05)
    with running_worker("-c", "1", url=redis_url, models=models, folder=tmp_path), Client(redis_url) as client:
        good = client.submit("doubling", [1, NOTHING, 0])
        good.result(timeout=30)
        flaky = client.submit("doubling", [2, UNREACHABLE, time.time() + 0.2])
        killer = client.submit("doubling", [3, KILL, 0])
        flaky.outcome(timeout=30)
        killer.outcome(timeout=30)
        steps = good.explain().steps
        assert [step.kind for step in steps] == ["submitted", "claimed", "predicted", "outcome"]
        moments = [step.at_ms or 0 for step in steps]
        assert moments == sorted(moments)
        assert (steps[1].claim_size, steps[2].instances) == (1, 1)
        assert (steps[2].version, steps[2].runtime) == ("1", "sklearn")
        assert steps[1].worker is not None
        assert steps[1].worker.startswith("worker@")
        assert "attempt" in [step.kind for step in flaky.explain().steps]
        dead = killer.explain()
        assert [step.cause for step in dead.steps if step.kind == "attempt"] == ["crash", "crash"]
        assert [step.kind for step in dead.steps][-2:] == ["outcome", "dead letter"]
        cancelled = client.submit("doubling", [4, NOTHING, 0], delay=60)
        cancelled.cancel()
        assert cancelled.explain().steps[-1].text == "cancelled"
    with Celery(broker=redis_url, backend=redis_url) as app:  # a plain Celery client reads it as well
        result = app.AsyncResult(good.id)
        assert result.get(timeout=5)["predictions"] == [2]
        assert result.worker == steps[1].worker
    stored = server.get(KEYS.result(good.id))
    assert isinstance(stored, bytes)
    assert len(json.dumps(json.loads(stored)["execution"], separators=(",", ":"))) < 120
