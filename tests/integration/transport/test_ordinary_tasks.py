"""Ordinary Celery tasks run on the transport too, and a stock worker beside it is not disturbed."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery, chain, chord, group
from kombu import serialization
from kombu.exceptions import DecodeError

from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.transport.claims import Claim, Lease
from headrace_worker.transport.message import CONTENT_TYPE, claim_message
from headrace_worker.transport.ordinary_message import decode_ordinary
from tests.support import ROOT
from tests.support.waiting import wait_until

#: The app and the queue of a worker, on this transport and on kombu's.
ORDINARY = ("tests.support.ordinary_tasks", "ordinary")
STOCK = ("tests.support.plain_celery_app", "predict.stock")
KEYS = Keys()


def start_worker(url: str, app: str, queue: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "celery", "-A", app, "worker", "-Q", queue, "--concurrency", "2"]
    quiet = ["--loglevel", "error", "--without-mingle", "--without-gossip"]
    environ = {**os.environ, "REDIS_URL": url}
    return subprocess.Popen(
        [*command, *quiet], cwd=ROOT, env=environ,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.fixture(scope="module")
def embedded() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis("--appendfsync", "no") as embedded:
        yield embedded


@pytest.fixture(scope="module")
def tasks(embedded: EmbeddedRedis) -> Iterator[Any]:
    """Return the module of the tasks, on a Redis with a worker of its app."""
    from tests.support import ordinary_tasks

    ordinary_tasks.app.conf.update(broker_url=embedded.url, result_backend=embedded.url)
    worker = start_worker(embedded.url, *ORDINARY)
    try:
        ordinary_tasks.add.delay(1, 1).get(timeout=60)
        yield ordinary_tasks
    finally:
        worker.terminate()
        worker.wait(timeout=20)
        ordinary_tasks.app.close()


@pytest.fixture
def server(embedded: EmbeddedRedis) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(embedded.url) as server:
        yield server


def test_a_task_runs_and_leaves_no_keys(tasks: Any, server: redis.Redis) -> None:
    assert tasks.add.delay(2, 3).get(timeout=20) == 5
    wait_until(lambda: not server.exists("headrace:leases", "ordinary"))
    locks = (b"headrace:watch:", b"headrace:keeper:")  # they expire
    assert not [key for key in server.scan_iter("headrace:*") if not key.startswith(locks)]


def test_a_failure_reaches_the_caller(tasks: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        tasks.fail.delay().get(timeout=20)


def test_a_retry_runs_again(tasks: Any) -> None:
    assert tasks.succeed_at_third_try.delay().get(timeout=20) == 2


def test_a_message_that_is_rejected_to_be_requeued_runs_again(tasks: Any, server: redis.Redis) -> None:
    server.delete("runs")
    assert tasks.reject_once.delay("runs").get(timeout=20) == "ran again"


def test_a_task_with_a_countdown_waits(tasks: Any) -> None:
    started = time.monotonic()
    assert tasks.add.apply_async((1, 2), countdown=1).get(timeout=20) == 3
    assert time.monotonic() - started >= 1


def test_chains_groups_and_chords_work(tasks: Any) -> None:
    assert chain(tasks.add.s(1, 2), tasks.add.s(3), tasks.add.s(4))().get(timeout=20) == 10
    assert group(tasks.add.s(n, n) for n in range(20))().get(timeout=20) == [2 * n for n in range(20)]
    assert chord((tasks.add.s(n, n) for n in range(10)), tasks.total.s())().get(timeout=20) == 90


def test_malformed_messages_become_dead_letters(tasks: Any, server: redis.Redis) -> None:
    server.lpush("ordinary", b"\xff\x00", b"[]", b"{}")
    assert tasks.add.delay(1, 1).get(timeout=20) == 2
    wait_until(lambda: server.hlen(KEYS.dead_messages) == 3)
    assert set(server.hvals(KEYS.dead_messages)) == {b"\xff\x00", b"[]", b"{}"}
    server.delete(*server.keys("headrace:dead*"))


def task_message(task: Any = "tests.support.ordinary_tasks.add", **fields: Any) -> bytes:
    """Return the message of a task that adds 1 and 1, with other fields."""
    body = base64.b64encode(b'[[1, 1], {}, {"callbacks": null}]').decode()
    message = {
        "body": body,
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"lang": "py", "task": task, "id": "a", "root_id": "a"},
        "properties": {"body_encoding": "base64", "correlation_id": "a", "delivery_info": {}},
    }
    return json.dumps({**message, **fields}).encode()


def protocol_1(task: Any, **fields: Any) -> bytes:
    """Return the message of a task in Celery's protocol 1, which names the task in the body."""
    body = json.dumps({"task": task, "id": "a", "args": [{}], "kwargs": {}}).encode()
    if fields.pop("compressed", False):
        body, fields["headers"] = zlib.compress(body), {"compression": "application/x-gzip"}
    return task_message(**{"body": base64.b64encode(body).decode(), "headers": {}, **fields})


#: Messages on which Celery or kombu fails in its event loop, or that pretend to be a claim.
REFUSED = {
    "deep": b"[" * 100_000,
    "a number that is none": b'{"__type__": "decimal", "__value__": "x"}',
    "no properties": task_message(properties=None),
    "properties that are a list": task_message(properties=[]),
    "delivery_info that is a text": task_message(properties={"delivery_info": "x"}),
    "headers that are a list": task_message(headers=[1]),
    "a body that is a list": task_message(body=[1]),
    "a body that is no base64": task_message(body="a"),
    "another encoding": task_message(properties={"body_encoding": "rot13"}),
    "a task that is a list": task_message(["headrace.claim"]),
    "a claim": task_message("headrace.claim"),
    "a claim by its content": task_message(**{"content-type": "application/x-headrace-claim"}),
    "a claim in protocol 1": protocol_1("headrace.claim"),
    "a compressed claim in protocol 1": protocol_1("headrace.claim", compressed=True),
    "a task that is a list in protocol 1": protocol_1(["headrace.claim"]),
}


@pytest.mark.parametrize("message", REFUSED.values(), ids=REFUSED)
def test_a_refused_message_becomes_a_dead_letter_and_does_not_stop_the_worker(
    tasks: Any, server: redis.Redis, message: bytes
) -> None:
    server.lpush("ordinary", message)
    wait_until(lambda: server.hvals(KEYS.dead_messages) == [message])
    assert tasks.add.delay(1, 1).get(timeout=20) == 2
    wait_until(lambda: server.zcard(KEYS.leases) == 0)
    server.delete(*server.keys("headrace:dead*"))


@pytest.mark.parametrize("message", [task_message(), protocol_1("tests.support.ordinary_tasks.fail")])
def test_a_message_as_celery_writes_it_is_not_refused(message: bytes) -> None:
    assert decode_ordinary(message, "tag")["properties"]["delivery_tag"] == "tag"


def test_a_claim_of_another_worker_is_not_decoded() -> None:
    claim = Claim(lease=Lease(name="me/1", queue="predict.churn", origins=((1, 1),)), queued_messages=[b"a"])
    body = claim_message(claim)["body"]
    args, *_ = serialization.loads(body, CONTENT_TYPE, "binary", accept={CONTENT_TYPE})
    assert args == (claim,)
    with pytest.raises(DecodeError, match="not made by this worker"):
        serialization.loads(bytes(16) + body[16:], CONTENT_TYPE, "binary", accept={CONTENT_TYPE})


def test_a_stock_worker_on_the_same_redis_is_not_disturbed(
    tasks: Any, embedded: EmbeddedRedis, server: redis.Redis
) -> None:
    plain_app = Celery("plain", broker=embedded.url, backend=embedded.url, set_as_current=False)
    stock = start_worker(embedded.url, *STOCK)
    try:
        results = [tasks.add.delay(n, n) for n in range(50)]
        stock_results = [
            plain_app.send_task("headrace.predict", args=["stock", [{"age": n}]], queue=STOCK[1])
            for n in range(50)
        ]
        assert [result.get(timeout=60) for result in results] == [2 * n for n in range(50)]
        assert [result.get(timeout=60)["predictions"] for result in stock_results] == [[2 * n] for n in range(50)]
        wait_until(lambda: not server.exists("unacked", "unacked_index", "headrace:leases"))
    finally:
        stock.terminate()
        stock.wait(timeout=20)
        plain_app.close()
