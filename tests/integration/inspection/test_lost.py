"""A job that is in no place is lost: it is told so, and its id can be submitted again."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
import uuid
from collections.abc import Iterator

import msgspec
import pytest
import redis

from headrace import AsyncClient, Client, JobConflict
from headrace.catalog.published import publish_contract
from headrace.connection.commands import execute, run
from headrace.inspection import lost
from headrace.inspection.lost import find_lost, sample_lost
from headrace.wire.attempts import encode_delayed
from headrace.wire.keys import Keys
from headrace.wire.queues import queue_name
from headrace.wire.record import DIGEST_BYTES
from headrace_worker.transport.claims import Claim, ClaimLimits
from headrace_worker.transport.leases import Leases
from tests.support.answering_worker import CHURN
from tests.support.command import headrace

KEYS = Keys()
QUEUE = queue_name("churn")
AGE = {"age": 41}


@pytest.fixture
def client(redis_url: str, server: redis.Redis) -> Iterator[Client]:
    publish_contract(server, KEYS, CHURN)
    with Client(redis_url) as client:
        yield client


def age(server: redis.Redis, *jobs: str, seconds: float = 10) -> None:
    """Make the records of jobs older: a new job is never lost."""
    for job in jobs:
        record = server.get(KEYS.job(job))
        assert isinstance(record, bytes)
        fields = msgspec.json.decode(record[DIGEST_BYTES:])
        fields["t"] = int((time.time() - seconds) * 1000)
        server.set(KEYS.job(job), record[:DIGEST_BYTES] + msgspec.json.encode(fields), keepttl=True)


def lost_among(server: redis.Redis, *jobs: str) -> set[str]:
    return set(run(lambda command: execute(server, command), find_lost(KEYS, jobs)))


def claim(server: redis.Redis, name: str, jobs: int = 1) -> tuple[Leases, Claim]:
    leases = Leases(server, KEYS)
    claim = leases.claim(name, [ClaimLimits(queue=QUEUE, jobs=jobs, bytes=10**6)], lease_ms=60_000)
    assert isinstance(claim, Claim)
    return leases, claim


def test_a_job_whose_list_was_deleted_is_lost_for_status_and_explain(
    client: Client, server: redis.Redis, redis_url: str
):
    job = client.submit("churn", AGE, id="nightly-17")
    age(server, job.id)
    assert headrace("status", job.id, "--url", redis_url).stdout == "waiting\n"
    server.delete(*KEYS.lists(QUEUE))
    assert headrace("status", job.id, "--url", redis_url).stdout == "lost\n"
    explained = headrace("explain", job.id, "--url", redis_url)
    assert explained.returncode == 1
    assert explained.stdout.startswith("job nightly-17 of churn: lost\n")
    assert "its list was deleted" in explained.stdout
    assert "submit it again under the same id" in explained.stdout


def test_a_job_in_any_place_or_with_an_outcome_or_new_is_not_lost(client: Client, server: redis.Redis):
    names = [f"job-{number}" for number in range(40)]
    lists = (*KEYS.sources(QUEUE), *(name for name, _ in KEYS.foreign_lists(QUEUE)))
    jobs = iter(names)
    for name in names:
        client.submit("churn", AGE, id=name)
    messages = dict(zip(names, reversed(server.lrange(QUEUE, 0, -1)), strict=True))
    server.delete(QUEUE)
    age(server, *names)
    for name in lists:
        job = next(jobs)
        server.lpush(name, messages[job])
        assert lost_among(server, job, "unknown") == set()
    job = next(jobs)
    server.zadd(KEYS.delayed(QUEUE), {encode_delayed(1, messages[job]): 10**13})
    assert lost_among(server, job) == set()
    leased = next(jobs)
    server.delete(*KEYS.sources(QUEUE))
    server.lpush(QUEUE, messages[leased])
    claim(server, "host/1/ab/1")
    assert lost_among(server, leased) == set()
    finished = client.job(next(jobs))
    assert finished.cancel()
    new = client.submit("churn", AGE)
    server.delete(QUEUE)
    last = next(jobs)
    assert lost_among(server, leased, finished.id, new.id, last) == {last}


def test_no_job_is_lost_while_a_plain_celery_worker_runs_jobs(client: Client, server: redis.Redis):
    client.submit("churn", AGE, id="a")
    age(server, "a")
    server.delete(QUEUE)
    server.hset("unacked", "tag", "message")
    assert lost_among(server, "a") == set()
    server.delete("unacked")
    assert lost_among(server, "a") == {"a"}


def test_a_key_of_another_type_in_the_place_of_a_list_holds_no_job(client: Client, server: redis.Redis):
    client.submit("churn", AGE, id="a")
    age(server, "a")
    server.delete(QUEUE)
    server.set(KEYS.lists(QUEUE)[1], "x")
    server.set(KEYS.delayed(QUEUE), "x")
    assert lost_among(server, "a") == {"a"}


def test_nothing_is_lost_in_a_queue_too_long_to_read(
    client: Client, server: redis.Redis, monkeypatch: pytest.MonkeyPatch
):
    client.submit("churn", AGE, id="a")
    age(server, "a")
    server.delete(QUEUE)
    client.submit_many("churn", [AGE] * 1600)
    assert lost_among(server, "a") == {"a"}
    monkeypatch.setattr(lost, "_MAX_SNAPSHOT", 1000)
    assert lost_among(server, "a") == {"a"}  # read in pieces
    monkeypatch.setattr(lost, "_MAX_MESSAGES", 1000)
    assert lost_among(server, "a") == set()


def test_jobs_that_move_all_the_time_are_never_lost(client: Client, server: redis.Redis):
    names = [f"job-{number}" for number in range(200)]
    client.submit_many("churn", [AGE] * len(names), ids=names)
    age(server, *names)
    stop = threading.Event()

    def move() -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            leases, moving = claim(server, f"host/1/ab/{number}", jobs=64)
            leases.requeue(moving.lease, delivered=False)

    mover = threading.Thread(target=move)
    mover.start()
    try:
        for _ in range(60):
            assert lost_among(server, *names) == set()
    finally:
        stop.set()
        mover.join()


def test_a_lost_job_can_be_submitted_again_under_its_id_and_only_once(client: Client, server: redis.Redis):
    job = client.submit("churn", AGE, id="nightly-17")
    assert client.submit("churn", AGE, id="nightly-17").id == job.id
    server.delete(QUEUE)
    client.submit("churn", AGE, id="nightly-17")
    assert server.llen(QUEUE) == 0  # a new job may be moving
    age(server, job.id)
    for _ in range(3):
        client.submit("churn", AGE, id="nightly-17")
    assert server.llen(QUEUE) == 1
    assert job.status() == "waiting"
    with pytest.raises(JobConflict):
        client.submit("churn", {"age": 42}, id="nightly-17")


def test_of_many_jobs_that_are_submitted_again_only_the_lost_ones_are_enqueued(
    client: Client, server: redis.Redis, redis_url: str
):
    names = [f"job-{number}" for number in range(700)]
    rows = [{"age": number} for number in range(700)]
    client.submit_many("churn", rows, ids=names)
    age(server, *names)
    server.ltrim(QUEUE, 0, 399)  # the first 300 are lost
    assert client.job(names[0]).cancel()

    async def submit_again() -> None:
        async with AsyncClient(redis_url) as other:
            await other.submit_many("churn", rows, ids=names)

    asyncio.run(submit_again())
    assert server.llen(QUEUE) == 400 + 299
    client.submit_many("churn", rows, ids=names)
    assert server.llen(QUEUE) == 400 + 299


def test_doctor_names_a_lost_job_whatever_its_id_looks_like(client: Client, server: redis.Redis, redis_url: str):
    own = [client.submit("churn", AGE, id=name).id for name in ("nightly-17", uuid.uuid4().hex, str(uuid.uuid4()))]
    age(server, *own)
    client.submit("churn", AGE)
    assert "lost job" not in headrace("doctor", "--url", redis_url).stdout
    server.rpop(QUEUE, 3)
    checked = headrace("doctor", "--url", redis_url)
    assert "3 lost jobs among 4, such as" in checked.stdout
    assert checked.returncode == 1
    state = run(lambda command: execute(server, command), sample_lost(KEYS))
    assert state is not None
    assert {each.replace("-", "") for each in state.lost} == {each.replace("-", "") for each in own}
