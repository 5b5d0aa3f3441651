"""Workers report the age of the oldest waiting job, for users who may not read messages."""

from __future__ import annotations

import time
from pathlib import Path

import redis

from headrace import Client
from headrace.connection.commands import execute
from headrace.inspection.oldest import decode_reports, read_reports, report_command
from headrace.wire.keys import Keys
from tests.support.claim_models import SLEEP, add_model, running_worker
from tests.support.waiting import wait_until

KEYS = Keys()


def waits(server: redis.Redis, **waiting: int) -> dict[str, float]:
    return decode_reports(execute(server, read_reports(KEYS)), waiting, time.time())


def test_a_report_says_how_long_the_oldest_job_of_any_list_has_waited(server: redis.Redis, redis_url: str) -> None:
    with Client(redis_url, check=False) as client:
        client.submit("churn", {"age": 4}, priority=9)
        time.sleep(0.3)
        client.submit("churn", {"age": 5})
    execute(server, report_command(KEYS, ["churn", "empty"]))
    reported = waits(server, churn=2, empty=0)
    assert 0.3 <= reported["churn"] < 20
    assert reported["empty"] == 0.0


def test_a_report_is_current_for_a_while_so_that_many_workers_cost_no_more_than_one(server: redis.Redis) -> None:
    execute(server, report_command(KEYS, ["churn"]))
    first = server.hget(KEYS.oldest, "churn")
    server.lpush("predict.churn", '{"correlation_id": "later"}')
    execute(server, report_command(KEYS, ["churn"]))
    assert server.hget(KEYS.oldest, "churn") == first
    server.hset(KEYS.oldest, "churn", b"%d," % (time.time() * 1000 - 1000))
    execute(server, report_command(KEYS, ["churn"]))
    assert server.hget(KEYS.oldest, "churn").endswith(b",later")


def test_jobs_that_came_after_the_last_report_have_waited_since_then_at_most(server: redis.Redis) -> None:
    server.hset(KEYS.oldest, "churn", b"%d" % (time.time() * 1000 - 60_000))
    assert 60 <= waits(server, churn=3)["churn"] < 70
    assert waits(server, churn=0) == {"churn": 0.0}
    assert waits(server, other=1) == {}, "no worker has reported"


def test_what_other_programs_queue_is_bounded_and_harmless(server: redis.Redis) -> None:
    server.lpush("predict.churn", b'{"correlation_id": "' + b"x" * 100_000 + b'"}')
    server.lpush("predict.churn\x06\x163", b"\xff\xfe")
    server.set("predict.churn\x06\x166", "a string")
    execute(server, report_command(KEYS, ["churn"]))
    assert len(server.hget(KEYS.oldest, "churn")) < 200
    assert waits(server, churn=1) == {}


def test_a_full_redis_does_not_refuse_a_report(server: redis.Redis) -> None:
    server.config_set("maxmemory", "1")
    try:
        execute(server, report_command(KEYS, ["churn"]))
    finally:
        server.config_set("maxmemory", "0")
    assert server.hexists(KEYS.oldest, "churn")


def test_a_worker_reports_its_queues(server: redis.Redis, redis_url: str, tmp_path: Path) -> None:
    with (
        running_worker("--concurrency", "1", url=redis_url, models=add_model(tmp_path), folder=tmp_path),
        Client(redis_url) as client,
    ):
        running = client.submit("doubling", [1, SLEEP, 3])
        wait_until(lambda: server.llen("predict.doubling") == 0)
        waiting = [client.submit("doubling", [2, SLEEP, 0]) for _ in range(200)]
        wait_until(lambda: waits(server, doubling=1).get("doubling", 0) > 1)
        assert running.result(timeout=20).prediction == 2
        assert waiting[-1].result(timeout=20).prediction == 4
