"""A job has one outcome: the first that is published."""

from __future__ import annotations

import json
import threading

import pytest
import redis

from headrace.wire.outcome import Cancelled, Expired, Failure, Outcome, Prediction, Success, decode_outcome
from tests.support.answering_worker import publish_outcomes
from tests.support.waiting import wait_until

SUCCESS = Success(job="a", prediction=Prediction(model="m", version="1", predictions=[1]))


def test_the_first_of_two_outcomes_is_stored(server: redis.Redis):
    assert publish_outcomes(server, SUCCESS, Cancelled(job="a")) == [1, 0]
    assert decode_outcome(server.get("celery-task-meta-a")) == SUCCESS


def test_one_of_several_racing_outcomes_is_stored_and_announced(redis_url: str, server: redis.Redis):
    outcomes: list[Outcome] = [
        SUCCESS,
        Cancelled(job="a"),
        Expired(job="a"),
        Failure(job="a", reason="crash", error="E", module="m", message="x"),
    ]
    replies: list[tuple[Outcome, int]] = []
    barrier = threading.Barrier(len(outcomes) * 4)

    def publish(outcome: Outcome) -> None:
        with redis.Redis.from_url(redis_url) as client:
            client.ping()
            barrier.wait(timeout=10)
            replies.append((outcome, publish_outcomes(client, outcome)[0]))

    with server.pubsub() as listener:
        listener.subscribe("celery-task-meta-a")
        assert wait_until(lambda: listener.get_message(timeout=1))["type"] == "subscribe"
        threads = [threading.Thread(target=publish, args=(outcome,)) for outcome in outcomes * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (winner,) = [outcome for outcome, reply in replies if reply]
        announced = wait_until(lambda: listener.get_message(timeout=1))
        assert decode_outcome(announced["data"]) == winner
        assert listener.get_message(timeout=0.1) is None
    assert decode_outcome(server.get("celery-task-meta-a")) == winner


@pytest.mark.parametrize(
    "stored",
    [
        b'{"status":"SUCCESS","task_id":"a"}',
        b'{"status": "FAILURE", "task_id": "a"}',
        b'{ "status" : "REVOKED" }',
        json.dumps({"task_id": "a", "result": "x" * 200, "status": "SUCCESS"}).encode(),
    ],
)
def test_an_outcome_stored_by_celery_counts_in_any_formatting(server: redis.Redis, stored: bytes):
    server.set("celery-task-meta-a", stored)
    assert publish_outcomes(server, SUCCESS) == [0]
    assert server.get("celery-task-meta-a") == stored


@pytest.mark.parametrize(
    "stored",
    [
        b'{"status": "STARTED", "result": {"status": "SUCCESS"}}',
        b'{"status":"RETRY"}',
        b'{"task_id": "a", "result": {"status": "SUCCESS"}, "status": "PENDING"}',
        b'{"nothing": 1}',
        b"no json",
        b"[]",
        b"4",
        b"[" * 5000,
        b"",
    ],
)
def test_a_stored_value_that_is_no_outcome_is_overwritten(server: redis.Redis, stored: bytes):
    server.set("celery-task-meta-a", stored)
    assert publish_outcomes(server, SUCCESS) == [1]
    assert decode_outcome(server.get("celery-task-meta-a")) == SUCCESS
