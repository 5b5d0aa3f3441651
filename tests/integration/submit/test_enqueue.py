"""Enqueueing: how long a record lives, which jobs the limit of a queue counts, and what a refused call leaves."""

from __future__ import annotations

from datetime import timedelta

import pytest
import redis

from headrace import BrokerUnavailable, Client, JobConflict, QueueFull, Settings
from headrace.wire.keys import Keys
from headrace.wire.queues import queue_name
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.redis_servers import SERVERS, find_server

AGE = {"age": 41}
QUEUE = queue_name("churn")
KEYS = Keys()


def test_the_record_of_a_delayed_job_lives_for_its_delay_and_its_time_to_live(
    redis_url: str, server: redis.Redis
) -> None:
    with Client(settings=Settings(redis_url=redis_url, job_ttl=60), check=False) as client:
        client.submit("churn", AGE, id="now")
        client.submit("churn", AGE, id="later", delay=timedelta(hours=1))
        client.submit_many("churn", [AGE, AGE], ids=["many-1", "many-2"], delay=3600)
    assert 50 < server.ttl(KEYS.job("now")) <= 60
    for job in ("later", "many-1", "many-2"):
        assert 3650 < server.ttl(KEYS.job(job)) <= 3661


def test_the_id_of_a_delayed_job_stays_taken_until_it_is_due(redis_url: str, server: redis.Redis) -> None:
    with Client(settings=Settings(redis_url=redis_url, job_ttl=1), check=False) as client:
        client.submit("churn", AGE, id="later", delay=3600)
        server.pexpire(
            KEYS.job("later"), server.pttl(KEYS.job("later")) - 1500
        )  # more than its time to live later
        with pytest.raises(JobConflict):
            client.submit("churn", {"age": 42}, id="later")


@pytest.mark.parametrize("name", SERVERS)
def test_the_limit_of_a_queue_counts_delayed_and_isolated_jobs(name: str) -> None:
    with EmbeddedRedis("--appendfsync", "no", server=find_server(name)) as embedded:
        settings = Settings(redis_url=embedded.url, queue_limit=6)
        with redis.Redis.from_url(embedded.url) as server, Client(settings=settings, check=False) as client:
            server.zadd(KEYS.delayed(QUEUE), {"a": 1, "b": 2})
            server.lpush(KEYS.isolated(QUEUE), "c")
            client.submit("churn", AGE, priority=9)
            client.submit_many("churn", [AGE, AGE])
            with pytest.raises(QueueFull):
                client.submit("churn", AGE)
            with pytest.raises(QueueFull):
                client.submit_many("churn", [AGE])
            server.zrem(KEYS.delayed(QUEUE), "a")
            client.submit("churn", AGE)


def test_a_repeat_is_no_error_while_the_queue_is_full(redis_url: str, server: redis.Redis) -> None:
    with Client(settings=Settings(redis_url=redis_url, queue_limit=1), check=False) as client:
        client.submit("churn", AGE, id="a", delay=60)
        assert client.submit("churn", AGE, id="a", delay=60).id == "a"
        assert server.llen(QUEUE) == 1


def test_an_id_given_twice_in_one_call_is_one_job_or_a_conflict(redis_url: str, server: redis.Redis) -> None:
    with Client(settings=Settings(redis_url=redis_url), check=False) as client:
        client.submit_many("churn", [AGE, AGE], ids=["a", "a"])
        assert server.llen(QUEUE) == 1
        with pytest.raises(JobConflict):
            client.submit_many("churn", [AGE, {"age": 42}], ids=["b", "b"])
        assert server.llen(QUEUE) == 2


def test_a_record_of_another_type_refuses_the_whole_call_and_names_the_key(
    redis_url: str, server: redis.Redis
) -> None:
    server.hset(KEYS.job("b"), "field", "value")
    with Client(settings=Settings(redis_url=redis_url), check=False) as client:
        with pytest.raises(BrokerUnavailable, match="headrace:id:b"):
            client.submit_many("churn", [AGE, AGE, AGE], ids=["a", "b", "c"])
        assert server.keys() == [KEYS.job("b").encode()]
        server.delete(KEYS.job("b"))
        client.submit_many("churn", [AGE, AGE, AGE], ids=["a", "b", "c"])
    assert server.llen(QUEUE) == 3
