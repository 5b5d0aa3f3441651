"""A user who may not write outcomes asks the workers to cancel; everybody else cancels at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
import redis

from headrace import AsyncClient, Client, JobCancelled, Settings
from headrace.connection.celery import create_celery_app
from headrace.connection.commands import execute, run
from headrace.results.cancellation import cancel, carry_out_requests
from headrace.wire.keys import Keys
from headrace.wire.outcome import Success, decode_outcome
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.answering_worker import publish_outcomes, success
from tests.support.claim_models import SLEEP, add_model, running_worker
from tests.support.functions import load_functions
from tests.support.redis_servers import find_server
from tests.support.waiting import wait_until

KEYS = Keys()


@pytest.fixture(scope="module")
def any_redis() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis("--appendfsync", "no", server=find_server("path")) as running:
        yield running


@pytest.fixture
def admin(any_redis: EmbeddedRedis) -> Iterator[redis.Redis]:
    """Return a client of an empty Redis with a user `limited`, who may not write outcomes."""
    with redis.Redis.from_url(any_redis.url) as client:
        client.flushall()
        load_functions(client)
        rules = ["reset", "on", ">x", "&*", "+@all", "-set", "~*", "(-@all +set ~headrace:*)"]
        client.execute_command("ACL", "SETUSER", "limited", *rules)
        yield client


@pytest.fixture
def limited(any_redis: EmbeddedRedis, admin: redis.Redis) -> Settings:
    return Settings(redis_url=f"redis://limited:x@127.0.0.1:{any_redis.port}/0")


def carry_out(admin: redis.Redis) -> int:
    return run(partial(execute, admin), carry_out_requests(KEYS, ttl=60, now=datetime.now(UTC)))


def test_a_user_who_may_write_outcomes_cancels_at_once(any_redis: EmbeddedRedis, admin: redis.Redis) -> None:
    with Client(any_redis.url, check=False) as client:
        job = client.submit("churn", {"age": 4})
        assert job.cancel(timeout=0)
        assert client.job(job.id).cancel(timeout=0), "a second cancellation is no error"
        assert job.status() == "cancelled"
    assert admin.zcard(KEYS.cancel_requests) == 0


def test_a_request_is_carried_out_once_and_announced(admin: redis.Redis, limited: Settings) -> None:
    with Client(settings=limited, check=False) as client:
        job = client.submit("churn", {"age": 4})
        assert not job.cancel(timeout=0)
        assert job.status() == "waiting"
        assert admin.zrange(KEYS.cancel_requests, 0, -1) == [job.id.encode()]
        assert admin.exists(KEYS.cancelled)
        assert carry_out(admin) == 1
        with pytest.raises(JobCancelled):
            job.result(timeout=5)
        assert carry_out(admin) == 0
        assert client.job(job.id).cancel(timeout=0)
    assert admin.zcard(KEYS.cancel_requests) == 0


def test_a_job_with_an_outcome_keeps_it(admin: redis.Redis, limited: Settings) -> None:
    with Client(settings=limited, check=False) as client:
        first, second = client.submit_many("churn", [{"age": 4}, {"age": 5}])
        publish_outcomes(admin, success(first.id))
        assert not first.cancel()
        assert admin.zcard(KEYS.cancel_requests) == 0
        assert not second.cancel(timeout=0)
        publish_outcomes(admin, success(second.id))
        assert carry_out(admin) == 1
        assert second.status() == "success"
    assert isinstance(decode_outcome(admin.get(KEYS.result(second.id))), Success)


def test_a_worker_cancels_a_waiting_and_a_running_job_within_a_second(
    any_redis: EmbeddedRedis, admin: redis.Redis, limited: Settings, tmp_path: Path
) -> None:
    with (
        running_worker("--concurrency", "1", url=any_redis.url, models=add_model(tmp_path), folder=tmp_path),
        Client(settings=limited) as client,
    ):
        running = client.submit("doubling", [1, SLEEP, 3])
        wait_until(lambda: admin.llen("predict.doubling") == 0)
        waiting = client.submit("doubling", [2, 0, 0])
        assert waiting.cancel()
        assert running.cancel()
        after = client.submit("doubling", [3, 0, 0])
        assert after.result(timeout=20).prediction == 6

        async def cancel_with_asyncio() -> bool:
            async with AsyncClient(settings=limited) as async_client:
                return await (await async_client.submit("doubling", [4, 0, 0], delay=60)).cancel()

        assert asyncio.run(cancel_with_asyncio())


def test_a_job_whose_cancellation_was_requested_before_a_worker_came_does_not_run(
    any_redis: EmbeddedRedis, admin: redis.Redis, limited: Settings, tmp_path: Path
) -> None:
    models = add_model(tmp_path)
    with Client(settings=limited, check=False) as client:
        jobs = client.submit_many("doubling", [[n, 0, 0] for n in range(3)])
        assert not jobs[1].cancel(timeout=0)
        with running_worker(url=any_redis.url, models=models, folder=tmp_path):
            assert jobs[2].result(timeout=20).prediction == 4
            with pytest.raises(JobCancelled):
                jobs[1].result(timeout=5)


def test_the_requests_are_bounded_and_ids_that_are_none_are_dropped(admin: redis.Redis, limited: Settings) -> None:
    admin.zadd(KEYS.cancel_requests, {b"\xff": 1, "x" * 1000: 1, "good": 1})
    assert carry_out(admin) == 1
    assert admin.zcard(KEYS.cancel_requests) == 0
    assert admin.keys("celery-task-meta-*") == [b"celery-task-meta-good"]
    command = next(cancel(KEYS, "late", ttl=60, now=datetime.now(UTC), unknown=True))
    full = (*command.args[:-1], 0)
    with (
        redis.Redis.from_url(limited.redis_url) as user,
        pytest.raises(redis.ResponseError, match="cancellation"),
    ):
        user.execute_command(*full)
    assert admin.zcard(KEYS.cancel_requests) == 0


@pytest.mark.parametrize("user", ["default", "limited"])
def test_an_id_that_nobody_submitted_is_not_cancelled(
    any_redis: EmbeddedRedis, admin: redis.Redis, limited: Settings, user: str
) -> None:
    settings = limited if user == "limited" else Settings(redis_url=any_redis.url)
    before = set(admin.keys("*"))
    with Client(settings=settings, check=False) as client:
        assert not client.job("typo").cancel()
        assert client.job("typo").status() == "unknown"
    assert set(admin.keys("*")) == before

    async def cancel_with_asyncio() -> bool:
        async with AsyncClient(settings=settings, check=False) as async_client:
            return await async_client.job("typo").cancel()

    assert not asyncio.run(cancel_with_asyncio())


def test_an_unknown_id_is_cancelled_on_request_before_its_submit_arrives(
    any_redis: EmbeddedRedis, admin: redis.Redis, tmp_path: Path
) -> None:
    models = add_model(tmp_path)
    with Client(any_redis.url, check=False) as client:
        assert client.job("early").cancel(unknown=True)
        jobs = [client.submit("doubling", [1, 0, 0], id="early"), client.submit("doubling", [2, 0, 0])]
        with running_worker(url=any_redis.url, models=models, folder=tmp_path):
            assert jobs[1].result(timeout=20).prediction == 4
        with pytest.raises(JobCancelled):
            jobs[0].result(timeout=5)


def test_a_job_of_a_plain_celery_client_is_unknown_until_it_runs(any_redis: EmbeddedRedis, admin: redis.Redis):
    with create_celery_app(Settings(redis_url=any_redis.url)) as app, Client(any_redis.url) as client:
        sent = app.send_task("headrace.predict", args=["churn", [{"age": 4}]], queue="predict.churn")
        assert not client.job(sent.id).cancel()
        assert client.job(sent.id).cancel(unknown=True)
        started = app.send_task("headrace.predict", args=["churn", [{"age": 4}]], queue="predict.churn")
        admin.set(KEYS.result(started.id), b'{"status": "STARTED", "result": null}')
        assert client.job(started.id).cancel(), "a stored state makes a job known"
