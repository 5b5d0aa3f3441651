"""A purge ends every job in a queue as cancelled, and removes its message in the same step."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery, chain

from headrace import Client, Settings, UnknownModel
from headrace.catalog.published import publish_contract
from headrace.results import purge
from headrace.wire.attempts import Attempt, encode_delayed, encode_queued_message
from headrace.wire.keys import Keys
from headrace.wire.queues import CLAIM_ORDER, holds_histories, queue_name
from headrace_worker.transport import broker_settings
from headrace_worker.transport.claims import Claim, ClaimLimits
from headrace_worker.transport.leases import Leases
from tests.support.answering_worker import CHURN
from tests.support.command import headrace

KEYS = Keys()
QUEUE = queue_name("churn")
AGE = {"age": 41}
RETRIED = Attempt(cause="error:OSError", owner="host/1", at_ms=1_700_000_000_000, claim_size=2)


@pytest.fixture
def client(redis_url: str, server: redis.Redis) -> Iterator[Client]:
    publish_contract(server, KEYS, CHURN)
    with Client(redis_url) as client:
        yield client


def spread(client: Client, server: redis.Redis) -> list[str]:
    """Put a job into every place of the queue; those that run again have a history. Return their ids."""
    names = [f"job-{number}" for number in range(40)]
    for name in names:
        client.submit("churn", AGE, id=name)
    messages = iter(reversed(server.lrange(QUEUE, 0, -1)))
    server.delete(QUEUE)
    for source in CLAIM_ORDER:
        attempts = (RETRIED,) if holds_histories(source) else ()
        server.lpush(KEYS.sources(QUEUE)[source], encode_queued_message(attempts, next(messages)))
        server.zadd(
            KEYS.delayed(QUEUE),
            {encode_delayed(source, encode_queued_message(attempts, next(messages))): 10**13},
        )
    for name, _ in KEYS.foreign_lists(QUEUE):
        server.lpush(name, next(messages))
    placed = 2 * len(CLAIM_ORDER) + len(KEYS.foreign_lists(QUEUE))
    return names[:placed]


def statuses(client: Client, names: list[str]) -> Counter[str]:
    return Counter(client.job(name).status() for name in names)


def test_jobs_in_every_place_are_cancelled_and_their_ids_are_those_of_ended_jobs(
    client: Client, server: redis.Redis
):
    names = spread(client, server)
    assert client.purge_queue("churn") == purge.PurgeResult(cancelled=len(names))
    assert statuses(client, names) == {"cancelled": len(names)}
    assert not server.keys("*predict.churn*")
    assert all(0 < server.ttl(KEYS.job(name)) <= 86_400 for name in names)


def test_a_queue_is_emptied_page_by_page_with_progress(client: Client, server: redis.Redis):
    jobs = client.submit_many("churn", [AGE] * 1000)
    jobs[0].cancel()
    server.lpush(QUEUE, "no job at all")
    progress: list[int] = []
    result = client.purge_queue("churn", on_progress=lambda so_far: progress.append(so_far.cancelled))
    assert (result.cancelled, result.removed) == (999, 2)
    assert progress == sorted(progress)
    assert len(set(progress)) >= 4
    assert statuses(client, [job.id for job in jobs]) == {"cancelled": 1000}
    assert not server.exists(QUEUE)


def test_leased_jobs_and_other_queues_are_left_alone(client: Client, server: redis.Redis):
    leased, waiting = client.submit("churn", AGE), client.submit("churn", AGE)
    limits = [ClaimLimits(queue=QUEUE, jobs=1, bytes=10**6)]
    claim = Leases(server, KEYS).claim("host/1/ab/1", limits, lease_ms=60_000)
    assert isinstance(claim, Claim)
    server.lpush("predict.churn2", "x")
    client.purge_queue("churn")
    assert (leased.status(), waiting.status()) == ("waiting", "cancelled")
    assert server.lrange(KEYS.lease("host/1/ab/1"), 0, -1) == claim.queued_messages
    assert server.llen("predict.churn2") == 1


def test_each_job_is_either_claimed_or_cancelled_while_workers_claim_and_requeue(
    client: Client, server: redis.Redis, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(purge, "_PAGE_MESSAGES", 20)
    jobs = [job.id for job in client.submit_many("churn", [AGE] * 2000)]
    claimed: list[bytes] = []
    stop = threading.Event()

    def work() -> None:
        leases = Leases(server, KEYS)
        for number in itertools.count():
            claim = leases.claim(
                f"host/1/ab/{number}", [ClaimLimits(queue=QUEUE, jobs=5, bytes=10**6)], lease_ms=60_000
            )
            if not isinstance(claim, Claim):
                return
            if number % 2:
                leases.requeue(claim.lease, delivered=False)
            else:
                claimed.extend(claim.queued_messages)
            if stop.is_set():
                return

    worker = threading.Thread(target=work)
    worker.start()
    try:
        client.purge_queue("churn")
    finally:
        stop.set()
        worker.join()
    client.purge_queue("churn")  # what was requeued meanwhile
    outcomes = statuses(client, jobs)
    assert outcomes["cancelled"] > 0
    assert outcomes == {"cancelled": len(jobs) - len(claimed), "waiting": len(claimed)}


def test_a_job_of_a_canvas_is_cancelled_and_left_for_the_worker_that_runs_what_follows(
    client: Client, server: redis.Redis, redis_url: str
):
    app: Celery[Any] = Celery("plain", broker=redis_url, backend=redis_url)
    predict = app.signature("headrace.predict", args=["churn", [AGE]], queue=QUEUE)
    result = chain(predict, app.signature("other", queue="other")).apply_async()
    plain = client.submit("churn", AGE)
    assert client.purge_queue("churn").cancelled == 2
    assert server.llen(QUEUE) == 1
    assert result.parent is not None
    assert client.job(result.parent.id).status() == plain.status() == "cancelled"
    assert server.exists(KEYS.cancelled)
    app.close()


def test_a_key_of_another_type_ends_the_purge_with_an_error_that_names_it(client: Client, server: redis.Redis):
    server.set(KEYS.lists(QUEUE)[1], "x")
    with pytest.raises(Exception, match="WRONGTYPE"):
        client.purge_queue("churn")
    with pytest.raises(UnknownModel):
        client.purge_queue("chrn")


def test_the_command_asks_before_it_cancels(client: Client, redis_url: str):
    job = client.submit("churn", AGE)
    refused = headrace("queues", "purge", "churn", "--url", redis_url)
    assert refused.returncode == 2
    assert "1 job would be cancelled; without a terminal to confirm on, pass --yes" in refused.stderr
    assert job.status() == "waiting"
    done = headrace("queues", "purge", "churn", "--yes", "--json", "--url", redis_url)
    assert (done.returncode, done.stdout) == (0, '{"cancelled":1,"removed":0}\n')
    assert done.stderr == "1 job cancelled\n"
    assert job.status() == "cancelled"


@pytest.mark.parametrize("prefix", ["", "team:"])
def test_celery_purge_on_a_headrace_app_ends_the_jobs_too(redis_url: str, server: redis.Redis, prefix: str):
    keys = Keys(prefix)
    with Client(settings=Settings(redis_url=redis_url, key_prefix=prefix), check=False) as client:
        jobs = [*client.submit_many("churn", [AGE] * 3), client.submit("churn", AGE, priority=9)]
        app: Celery[Any] = Celery("worker", broker=redis_url)
        app.conf.update(broker_settings(redis_url))
        app.conf.broker_transport_options |= {"global_keyprefix": prefix}
        server.lpush(f"{prefix}ordinary", "x", "y")
        with app.connection_for_write() as connection:
            assert connection.default_channel.queue_purge(QUEUE) == 4
            assert connection.default_channel.queue_purge("ordinary") == 2
        assert {job.status() for job in jobs} == {"cancelled"}
        assert not server.exists(*keys.lists(QUEUE), f"{prefix}ordinary")
        app.close()
