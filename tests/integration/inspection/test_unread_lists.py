"""Lists with jobs that no worker reads are named, whichever Celery client wrote them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import redis
from celery import Celery

from headrace.catalog.published import publish_contract
from headrace.connection.commands import execute, run
from headrace.inspection.unread_lists import UnreadList, find_unread_lists
from headrace.wire.keys import Keys
from tests.support.answering_worker import CHURN
from tests.support.command import headrace

JOB = {"name": "headrace.predict", "args": ["churn", [{"age": 41}]]}


@pytest.fixture
def app(redis_url: str, server: redis.Redis) -> Iterator[Celery[Any]]:
    """A plain Celery app, on a Redis where the model churn is published."""
    publish_contract(server, Keys(), CHURN)
    with Celery(broker=redis_url, backend=redis_url) as app:
        app.conf.task_default_queue = "celery"
        yield app


def find(server: redis.Redis, prefix: str = "") -> list[UnreadList] | None:
    return run(partial(execute, server), find_unread_lists(Keys(prefix)))


def test_a_slip_in_the_name_and_no_queue_at_all_are_named(app: Celery[Any], server: redis.Redis):
    for queue in ("predict.chrun", "predict.chrun", "churn", None, "predict.churn"):
        app.send_task(**JOB, queue=queue)
    assert find(server) == [
        UnreadList(name="predict.chrun", messages=2, nearest="predict.churn"),
        UnreadList(name="celery", messages=1),
        UnreadList(name="churn", messages=1),
    ]


@pytest.mark.parametrize("protocol", [1, 2])
@pytest.mark.parametrize("task_id", ["a", "ab", "abc"])
def test_a_job_of_either_protocol_is_known(app: Celery[Any], server: redis.Redis, protocol: int, task_id: str):
    app.conf.task_protocol = protocol
    app.send_task(**JOB, task_id=task_id)
    assert [unread.name for unread in find(server) or ()] == ["celery"]


@pytest.mark.parametrize("protocol", [1, 2])
def test_another_applications_tasks_are_not_named(app: Celery[Any], server: redis.Redis, protocol: int):
    app.conf.task_protocol = protocol
    link = app.signature("headrace.predict", args=["churn", [1]], queue="predict.churn")
    app.send_task("tasks.prepare", queue="celery", **({"link": link} if protocol == 2 else {}))
    server.lpush("reports", "headrace.predict is the name of the task")
    server.set("predict.a-text", "headrace.predict")
    assert find(server) == []


def test_lists_of_other_steps_are_read_and_those_of_other_separators_are_named(
    app: Celery[Any], server: redis.Redis
):
    for separator in (":", "\x06\x16", "--"):
        app.conf.broker_transport_options = {"priority_steps": list(range(10)), "sep": separator}
        with app.connection_for_write() as connection, app.amqp.Producer(connection) as producer:
            app.send_task(**JOB, queue="predict.churn", priority=5, producer=producer)
    assert find(server) == [UnreadList(name="predict.churn--5", messages=1, nearest="predict.churn")]


def test_only_the_lists_of_an_installation_are_looked_through(server: redis.Redis):
    server.lpush("sh[o]p:predict.chrun", "message")
    server.lpush("predict.chrun", "message")
    server.lpush("sh[o]p:headrace:isolated:predict.churn", "message")
    assert find(server, "sh[o]p:") == [UnreadList(name="sh[o]p:predict.chrun", messages=1)]


def test_a_list_that_is_not_utf_8_is_named_without_its_control_characters(server: redis.Redis):
    server.lpush(b"predict.\xff\x1b[2J", "message")
    server.lpush(b"\xff\xfe", "headrace.predict")
    [unread] = find(server) or ()
    assert unread.name.isprintable()


def test_a_user_who_may_not_scan_is_not_disturbed(redis_url: str, server: redis.Redis):
    server.execute_command("ACL SETUSER short on >pw ~* &* +@all -scan")
    try:
        with redis.Redis.from_url(redis_url.replace("redis://", "redis://short:pw@")) as limited:
            assert find(limited) is None
    finally:
        server.execute_command("ACL DELUSER short")


def test_the_commands_name_unread_lists(app: Celery[Any], redis_url: str):
    app.send_task(**JOB, queue="predict.chrun")
    result = headrace("queues", "--url", redis_url)
    assert "no worker reads the list predict.chrun, with 1 message; did you mean predict.churn?" in result.stderr
    assert "chrun" not in result.stdout
    result = headrace("doctor", "--url", redis_url)
    assert "service: error: predict.chrun is a list that no worker reads, with 1 message" in result.stdout
    assert "LMOVE 'predict.chrun' predict.churn RIGHT LEFT" in result.stdout
