"""Whatever a Celery client can send to a worker ends in an outcome under its id."""

from __future__ import annotations

import base64
import itertools
import json
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from celery import Celery
from celery.result import AsyncResult

from headrace import Client
from tests.support.foreign_clients import (
    COMPRESSIONS,
    MODEL,
    QUEUE,
    READ_COMPRESSIONS,
    SERIALIZERS,
    gocelery_message,
    is_dead_letter,
    register_missing_codecs,
    send,
)
from tests.support.served_worker import Site, server, shared, store
from tests.support.waiting import wait_until

__all__ = ["server", "shared", "store"]

#: Options of a call, in turn for the serializers and compressions.
OPTIONS: list[dict[str, Any]] = [
    {},
    {"priority": 9},
    {"priority": 5, "countdown": 0.2},
    {"eta": datetime.now(UTC) + timedelta(seconds=0.5)},
    {"expires": 600},
    {"expires": datetime.now(UTC) + timedelta(hours=1), "priority": 3},
    {"shadow": "another name", "headers": {"tenant": "a"}, "reply_to": "x", "retries": 3},
]


@pytest.fixture(scope="module")
def app(shared: Site) -> Iterator[Celery[Any]]:
    register_missing_codecs()
    with Celery(broker=shared.url, backend=shared.url) as app:
        yield app


def outcome(result: AsyncResult[Any]) -> tuple[str, Any]:
    """Wait for an outcome. Return its state, and the predictions or the error."""
    value = result.get(timeout=60, propagate=False)
    return result.state, value["predictions"] if result.state == "SUCCESS" else str(value)


@pytest.mark.parametrize("protocol", [1, 2])
def test_every_form_that_celery_writes_has_an_outcome(shared: Site, server: redis.Redis, protocol: int) -> None:
    register_missing_codecs()
    forms = list(itertools.product(SERIALIZERS, COMPRESSIONS, OPTIONS))
    with Celery(broker=shared.url, backend=shared.url, task_protocol=protocol) as app:
        results = [
            send(app, number, serializer=serializer, compression=compression, **options)
            for number, (serializer, compression, options) in enumerate(forms)
        ]
        for number, ((serializer, compression, _), result) in enumerate(zip(forms, results, strict=True)):
            state, value = outcome(result)
            if serializer == "json" and compression in READ_COMPRESSIONS:
                assert (state, value) == ("SUCCESS", [2 * number])
            else:
                assert state == "FAILURE"
                assert "serializer='json'" in value or "compression='zlib'" in value
                assert is_dead_letter(server, result.id)


@pytest.mark.parametrize("steps", [list(range(10)), [0, 4, 7]])
@pytest.mark.parametrize("separator", [":", "\x06\x16"])
def test_jobs_of_clients_with_other_priority_steps_run(shared: Site, steps: list[int], separator: str) -> None:
    options = {"priority_steps": steps, "sep": separator}
    with Celery(broker=shared.url, backend=shared.url, broker_transport_options=options) as app:
        results = [send(app, priority, priority=priority) for priority in range(10)]
        assert [outcome(result) for result in results] == [("SUCCESS", [2 * priority]) for priority in range(10)]


def test_jobs_of_gocelery_run(app: Celery[Any], server: redis.Redis) -> None:
    jobs = [str(uuid.uuid4()) for _ in range(3)]
    for number, job in enumerate(jobs):
        server.lpush(QUEUE, gocelery_message(number, job))
    assert [outcome(app.AsyncResult(job)) for job in jobs] == [("SUCCESS", [2 * n]) for n in range(3)]
    expired = str(uuid.uuid4())
    server.lpush(QUEUE, gocelery_message(1, expired, expires="2020-01-01T00:00:00Z"))
    assert outcome(app.AsyncResult(expired))[0] in {"FAILURE", "REVOKED"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"time_limit": 30}, "limits of a model"),
        ({"soft_time_limit": 30}, "limits of a model"),
        ({"args": ["single", [[1, 0, 0]]]}, "send it to predict.single"),
        ({"args": [MODEL, [[float("inf"), 0, 0]]]}, "infinite"),
        ({"args": [MODEL, [[float("nan"), 0, 0]]]}, "missing value"),
        ({"args": [MODEL, [["\ud800", 0, 0]]]}, "surrogate"),
        ({"args": [MODEL, [[uuid.UUID(int=1), 0, 0]]]}, "must be a number, got a string"),
        ({"kwargs": {"verison": "1"}}, "options are version"),
    ],
)
def test_what_no_worker_can_heed_is_refused_under_its_id(
    app: Celery[Any], server: redis.Redis, options: dict[str, Any], words: str
) -> None:
    args = options.get("args", [MODEL, [[1, 0, 0]]])
    result = app.send_task("headrace.predict", queue=QUEUE, **{**options, "args": args})
    state, error = outcome(result)
    assert state == "FAILURE"
    assert words in error
    assert is_dead_letter(server, result.id)


def test_a_mistyped_task_is_refused_under_its_id(app: Celery[Any]) -> None:
    state, error = outcome(app.send_task("headrace.predcit", args=[MODEL, [[1, 0, 0]]], queue=QUEUE))
    assert (state, "the name of the task is 'headrace.predcit'" in error) == ("FAILURE", True)


def test_typed_values_of_kombu_are_predicted(app: Celery[Any]) -> None:
    from decimal import Decimal

    result = app.send_task("headrace.predict", args=[MODEL, [[Decimal("2.5"), 0, 0]]], queue=QUEUE)
    assert outcome(result) == ("SUCCESS", [5])


def test_the_predictions_of_a_job_with_ignored_result_are_not_stored(
    app: Celery[Any], server: redis.Redis
) -> None:
    result = send(app, 4, ignore_result=True)
    assert result.get(timeout=1) is None  # the client does not wait
    stored = wait_until(lambda: server.get(f"celery-task-meta-{result.id}"))
    assert isinstance(stored, bytes)
    assert json.loads(stored)["status"] == "SUCCESS"
    assert json.loads(stored)["result"]["predictions"] == []


def test_a_message_that_would_take_the_process_is_refused_and_others_run(
    app: Celery[Any], server: redis.Redis, shared: Site
) -> None:
    others = [send(app, number) for number in range(20)]
    messages = {}
    for name, instances in {
        "lists": b"[]," * 2_600_000 + b"[]",
        "bytes": b'"' + b"x" * 40_000_000 + b'"',
        "depth": b"[" * 60_000 + b"]" * 60_000,
    }.items():
        body = b'[["doubling",[' + instances + b"]],{},null]"
        messages[name] = json.dumps(
            {
                "body": base64.b64encode(body).decode(),
                "content-type": "application/json",
                "content-encoding": "utf-8",
                "headers": {"task": "headrace.predict", "id": name},
                "properties": {"body_encoding": "base64", "correlation_id": name, "priority": 0},
            }
        ).encode()
        server.rpush(QUEUE, messages[name])
    others += [send(app, number) for number in range(20)]
    errors = {name: outcome(app.AsyncResult(name)) for name in messages}
    assert {name: state for name, (state, _) in errors.items()} == dict.fromkeys(messages, "FAILURE")
    assert "HEADRACE_MAX_JOB_VALUES" in errors["lists"][1]
    assert "HEADRACE_MAX_JOB_BYTES" in errors["bytes"][1]
    assert "nested too deeply" in errors["depth"][1]
    assert [outcome(result)[0] for result in others] == ["SUCCESS"] * 40
    with Client(shared.url) as client:
        assert client.dead_letters.show("lists").attempts == ()  # no process was lost


def test_a_compressed_job_that_is_too_large_is_refused(app: Celery[Any]) -> None:
    started_at = time.monotonic()
    rows = [[0, 0, 0]] * 3_000_000
    result = app.send_task("headrace.predict", args=[MODEL, rows], queue=QUEUE, compression="zlib")
    state, error = outcome(result)
    assert (state, "HEADRACE_MAX_JOB_BYTES" in error) == ("FAILURE", True), time.monotonic() - started_at
