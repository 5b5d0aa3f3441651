"""Submits that Redis refuses raise an error that names the reason, and leave nothing behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from headrace import BrokerUnavailable, Client, Settings
from headrace.connection.retry import _MAX_FIRST_TRIES
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.redis_servers import SERVERS, find_server
from tests.support.submitting import AGE, QUEUE, Submitter, count_waiting, settings
from tests.support.waiting import wait_until


@pytest.mark.parametrize("name", SERVERS)
def test_a_primary_that_became_a_replica_is_reported_and_used_again_as_a_primary(name: str):
    with EmbeddedRedis(server=find_server(name)) as server, redis.Redis.from_url(server.url) as admin:
        submitter = Submitter("Client", settings(server.url))
        with Client(settings=settings(server.url), check=False) as client:
            first = client.submit("churn", AGE).id
            admin.replicaof("127.0.0.1", "1")
            admin.config_resetstat()
            with pytest.raises(BrokerUnavailable, match="read-only replica"):
                client.submit("churn", AGE)
            errors = admin.info("errorstats").values()
            assert sum(error["count"] for error in errors) <= 3 * _MAX_FIRST_TRIES  # a server may count one twice
            submitter.submit(1)
            assert "read-only replica" in str(submitter.raised[0])
            admin.replicaof("NO", "ONE")
            second = client.submit("churn", AGE).id
        assert count_waiting(admin) == Counter([first, second])


@pytest.mark.parametrize("name", SERVERS)
def test_a_redis_without_memory_is_reported_at_once_and_keeps_nothing_of_the_job(name: str):
    with EmbeddedRedis(server=find_server(name)) as server, redis.Redis.from_url(server.url) as admin:
        with Client(settings=settings(server.url), check=False) as client:
            client.submit("churn", AGE, id="first")
            admin.config_set("maxmemory", "1")
            admin.config_resetstat()
            with pytest.raises(BrokerUnavailable, match="has no memory left"):
                client.submit("churn", AGE, id="second")
            errors = admin.info("errorstats").values()
            assert sum(error["count"] for error in errors) == 1, "one try"
            assert client.job("second").status() == "unknown"
            admin.config_set("maxmemory", "0")
            client.submit("churn", AGE, id="second")
        assert count_waiting(admin) == Counter(["first", "second"])


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize("fault", ["another type", "no permission"])
def test_a_job_that_could_not_be_pushed_is_no_repeat_when_it_is_submitted_again(name: str, fault: str):
    with EmbeddedRedis(server=find_server(name)) as server, redis.Redis.from_url(server.url) as admin:
        if fault == "another type":
            admin.set(QUEUE, "no list")
        else:
            admin.execute_command("ACL", "SETUSER", "default", "-lpush")
        chosen = Settings(redis_url=server.url, queue_limit=0)
        with Client(settings=chosen, check=False) as client:
            for _ in range(2):
                with pytest.raises(BrokerUnavailable):
                    client.submit("churn", AGE, id="order-1")
            assert client.job("order-1").status() == "unknown"
            admin.execute_command("ACL", "SETUSER", "default", "+lpush")
            admin.delete(QUEUE)
            client.submit("churn", AGE, id="order-1")
        assert count_waiting(admin) == Counter(["order-1"])


def test_too_few_replicas_are_reported(server: redis.Redis, redis_url: str):
    server.config_set("min-replicas-to-write", 1)
    try:
        with (
            Client(settings=settings(redis_url, 0.5), check=False) as client,
            pytest.raises(BrokerUnavailable, match="min-replicas-to-write"),
        ):
            client.submit("churn", AGE)
    finally:
        server.config_set("min-replicas-to-write", 0)


def test_the_error_of_a_submit_counts_the_jobs_that_were_enqueued_before(server: redis.Redis, redis_url: str):
    def rows() -> Iterator[Any]:
        for number in range(500):
            if number == 300:
                wait_until(lambda: server.llen(QUEUE) == 250)  # the first call, sent while these jobs are encoded
                server.config_set("maxmemory", "1")
            yield AGE

    with Client(settings=settings(redis_url), check=False) as client:
        client.submit("churn", AGE)  # loads the script: a call of an unknown script runs when its reply is read
        server.delete(QUEUE)
        try:
            with pytest.raises(BrokerUnavailable, match="no memory") as caught:
                client.submit_many("churn", rows())
        finally:
            server.config_set("maxmemory", "0")
    assert caught.value.__notes__ == ["250 jobs of the same call were enqueued before"]
    assert server.llen(QUEUE) == 250
