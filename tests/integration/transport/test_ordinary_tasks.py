"""Ordinary Celery tasks on ordinary queues go through our transport too, and others are left in peace."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery, chain, chord, group
from kombu import Connection, Exchange, Queue
from kombu.asynchronous import Hub

from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.transport import ALIAS
from headrace_worker.transport.channel import Channel
from headrace_worker.transport.claims import ClaimLimits
from headrace_worker.transport.leases import Leases
from tests.chaos.proxy import Proxy
from tests.support import ROOT
from tests.support.waiting import wait_until

ORDINARY = ("tests.support.ordinary_tasks", "ordinary")
OURS = "headrace_worker.transport:Transport"
KEYS = Keys()
LETTERS = [KEYS.dead, KEYS.dead_messages, KEYS.dead_times]
STOCK = ("tests.support.plain_celery_app", "predict.stock")


def worker(url: str, app: str, queue: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "celery", "-A", app, "worker", "-Q", queue, "--concurrency", "2"]
    quiet = ["--loglevel", "error", "--without-mingle", "--without-gossip"]
    environ = {**os.environ, "REDIS_URL": url}
    return subprocess.Popen(
        [*command, *quiet], cwd=ROOT, env=environ,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.fixture(scope="module")
def own() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis("--appendfsync", "no") as own:
        yield own


@pytest.fixture(scope="module")
def tasks(own: EmbeddedRedis) -> Iterator[Any]:
    """The module of tasks, on a Redis where a worker of it runs."""
    from tests.support import ordinary_tasks

    ordinary_tasks.app.conf.update(broker_url=own.url, result_backend=own.url)
    running = worker(own.url, *ORDINARY)
    try:
        ordinary_tasks.add.delay(1, 1).get(timeout=60)
        yield ordinary_tasks
    finally:
        running.terminate()
        running.wait(timeout=20)
        ordinary_tasks.app.close()


@pytest.fixture
def server(own: EmbeddedRedis) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(own.url) as server:
        yield server


def test_a_task_runs_and_leaves_nothing_behind(tasks: Any, server: redis.Redis) -> None:
    assert tasks.add.delay(2, 3).get(timeout=20) == 5
    wait_until(lambda: not server.exists("headrace:leases", "ordinary"))
    assert not list(server.scan_iter("headrace:*"))


def test_a_failure_reaches_the_caller(tasks: Any) -> None:
    with pytest.raises(ValueError, match="as it should"):
        tasks.fail.delay().get(timeout=20)


def test_a_retry_runs_again(tasks: Any) -> None:
    assert tasks.third_time_lucky.delay().get(timeout=20) == 2


def test_a_rejected_message_that_is_queued_again_runs_again(tasks: Any, server: redis.Redis) -> None:
    server.delete("tries")
    assert tasks.back_once.delay("tries").get(timeout=20) == "ran again"


def test_a_task_with_a_countdown_waits(tasks: Any) -> None:
    began = time.monotonic()
    assert tasks.add.apply_async((1, 2), countdown=1).get(timeout=20) == 3
    assert time.monotonic() - began >= 1


def test_chains_groups_and_chords_work(tasks: Any) -> None:
    assert chain(tasks.add.s(1, 2), tasks.add.s(3), tasks.add.s(4))().get(timeout=20) == 10
    assert group(tasks.add.s(n, n) for n in range(20))().get(timeout=20) == [2 * n for n in range(20)]
    assert chord((tasks.add.s(n, n) for n in range(10)), tasks.total.s())().get(timeout=20) == 90


def test_bytes_that_are_no_message_are_kept(tasks: Any, server: redis.Redis) -> None:
    server.lpush("ordinary", b"\xff\x00", b"[]", b"{}")
    assert tasks.add.delay(1, 1).get(timeout=20) == 2
    wait_until(lambda: server.hlen(KEYS.dead_messages) == 3)
    assert set(server.hvals(KEYS.dead_messages)) == {b"\xff\x00", b"[]", b"{}"}
    server.delete(*LETTERS)


def test_a_stock_worker_beside_us_is_not_disturbed(tasks: Any, own: EmbeddedRedis, server: redis.Redis) -> None:
    plain = Celery("plain", broker=own.url, backend=own.url, set_as_current=False)
    stock = worker(own.url, *STOCK)
    try:
        ours = [tasks.add.delay(n, n) for n in range(50)]
        theirs = [
            plain.send_task("headrace.predict", args=["stock", [{"age": n}]], queue=STOCK[1]) for n in range(50)
        ]
        assert [result.get(timeout=60) for result in ours] == [2 * n for n in range(50)]
        assert [result.get(timeout=60)["predictions"] for result in theirs] == [[2 * n] for n in range(50)]
        wait_until(lambda: not server.exists("unacked", "unacked_index", "headrace:leases"))
    finally:
        stock.terminate()
        stock.wait(timeout=20)
        plain.close()


# --- the transport without Celery ------------------------------------------------------------------------


@pytest.fixture
def connection(own: EmbeddedRedis, server: redis.Redis) -> Iterator[Connection]:
    with Connection(own.url, transport=OURS) as connection:
        yield connection
    server.delete("simple")


def queue(name: str = "simple") -> Queue:
    return Queue(name, Exchange(""), routing_key=name)


def received(connection: Connection, count: int, **options: Any) -> list[Any]:
    """Messages as a plain kombu consumer gets them."""
    got: list[Any] = []
    with connection.Consumer(queue(), callbacks=[lambda body, message: got.append(message)], **options):
        deadline = time.monotonic() + 10
        while len(got) < count and time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                connection.drain_events(timeout=1)
    return got


def send(connection: Connection, *bodies: Any) -> None:
    with connection.Producer() as producer:
        for body in bodies:
            producer.publish(body, routing_key="simple", declare=[queue()])


def test_messages_come_in_order_and_go_when_acknowledged(connection: Connection, server: redis.Redis) -> None:
    send(connection, *range(10))
    got = received(connection, 10)
    assert [message.payload for message in got] == list(range(10))
    assert server.zcard("headrace:leases") == 10
    for message in got:
        message.ack()
    assert not server.exists("headrace:leases", "simple")


def test_what_is_not_acknowledged_goes_back_when_the_channel_closes(
    own: EmbeddedRedis, server: redis.Redis
) -> None:
    with Connection(own.url, transport=OURS) as first:
        send(first, 1, 2, 3)
        got = received(first, 3)
        got[1].ack()
    assert not server.exists("headrace:leases")
    with Connection(own.url, transport=OURS) as second:
        again = received(second, 2)
        assert [message.payload for message in again] == [1, 3]
        assert all(message.headers["redelivered"] for message in again)
        for message in again:
            message.ack()


def test_a_requeued_message_comes_again_and_a_rejected_one_does_not(
    connection: Connection, server: redis.Redis
) -> None:
    send(connection, "again", "never")
    again, never = received(connection, 2)
    again.requeue()
    never.reject()
    (message,) = received(connection, 1)
    assert message.payload == "again"
    message.ack()
    assert not server.exists("headrace:leases", "simple")


def test_a_message_whose_consumer_was_lost_says_that_it_was_delivered_before(
    connection: Connection, server: redis.Redis
) -> None:
    send(connection, "first", "second")
    server.lpush("simple", b"no message")
    keys = connection.default_channel.keys
    lost = Leases(server, keys)
    for number in range(3):
        lost.claim(f"gone/1/x/{number}", [ClaimLimits(queue="simple")], lease_ms=1)
    time.sleep(0.01)
    for lease in lost.expired():
        assert lost.requeue_isolated(lease, "lease_expired", owner="other", only_if_expired=True) == 1
    assert b"no message" in server.lrange("simple", 0, -1)
    server.lrem("simple", 1, b"no message")
    again = received(connection, 2)
    assert sorted(message.payload for message in again) == ["first", "second"]
    assert all(message.headers["redelivered"] for message in again)
    assert all(message.delivery_info["redelivered"] for message in again)
    for message in again:
        message.ack()


def test_requeued_messages_come_after_what_waits_in_their_order(connection: Connection) -> None:
    send(connection, 1, 2, 3)
    for message in received(connection, 2):
        message.requeue()
    again = received(connection, 3)
    assert [message.payload for message in again] == [3, 1, 2]
    assert [bool(message.delivery_info.get("redelivered")) for message in again] == [False, True, True]
    for message in again:
        message.ack()


def test_without_acknowledgements_no_lease_is_kept(connection: Connection, server: redis.Redis) -> None:
    send(connection, 1, 2)
    assert [message.payload for message in received(connection, 2, no_ack=True)] == [1, 2]
    assert not server.exists("headrace:leases", "simple")


def test_a_consumer_of_replies_starts_no_thread(connection: Connection) -> None:
    before = threading.enumerate()
    send(connection, 1)
    assert len(received(connection, 1, no_ack=True)) == 1
    assert set(threading.enumerate()) <= set(before)


def test_a_consumer_with_nothing_to_do_leaves_redis_alone(connection: Connection, server: redis.Redis) -> None:
    with connection.Consumer(queue(), callbacks=[lambda body, message: message.ack()]):
        server.config_resetstat()
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=1)
        # Every look at the queues is a handful, scripts and what they call; asked all the time they are thousands.
        assert server.info("stats")["total_commands_processed"] < 400


def test_queues_with_and_without_acknowledgements_do_not_starve_each_other(connection: Connection) -> None:
    got: list[Any] = []
    with (
        connection.Consumer(queue("silent"), callbacks=[lambda body, message: None], no_ack=True),
        connection.Consumer(queue(), callbacks=[lambda body, message: (got.append(body), message.ack())]),
    ):
        send(connection, 1, 2, 3)
        deadline = time.monotonic() + 10
        while len(got) < 3 and time.monotonic() < deadline:
            connection.drain_events(timeout=5)
    assert got == [1, 2, 3]


def test_queues_are_emptied_in_their_order_where_that_is_asked_for(own: EmbeddedRedis) -> None:
    in_order = {"queue_order_strategy": "priority"}
    names = ["high", "medium", "low"]  # in the alphabet, they come in another order
    got: list[str] = []
    with Connection(own.url, transport=OURS, transport_options=in_order) as connection:
        queues = [queue(name) for name in names]
        with connection.Producer() as producer:
            for name in reversed(names * 3):
                producer.publish(name, routing_key=name, declare=[queue(name)])
        with connection.Consumer(queues, callbacks=[lambda body, message: (got.append(body), message.ack())]):
            while len(got) < 9:
                connection.drain_events(timeout=10)
    assert got == ["high"] * 3 + ["medium"] * 3 + ["low"] * 3


def test_a_consumer_whose_connection_fell_silent_connects_anew(own: EmbeddedRedis, connection: Connection) -> None:
    options = {"lease_seconds": 1.0}
    with Proxy(own.port) as proxy, Connection(proxy.url, transport=OURS, transport_options=options) as consuming:
        got: list[Any] = []
        with consuming.Consumer(queue(), callbacks=[lambda body, message: (got.append(body), message.ack())]):
            with contextlib.suppress(TimeoutError):
                consuming.drain_events(timeout=0.1)
            assert proxy.go_silent()
            send(connection, "unheard")
            deadline = time.monotonic() + 10
            while not got and time.monotonic() < deadline:
                with contextlib.suppress(TimeoutError):
                    consuming.drain_events(timeout=1)
    assert got == ["unheard"]


def test_the_slow_poll_ends_with_its_connection(own: EmbeddedRedis) -> None:
    hub = Hub()

    def polls() -> int:
        entries = [scheduled.entry for scheduled in hub.timer.queue]
        return sum(entry.fun.__name__ == "poll_all" and not entry.cancelled for entry in entries)

    try:
        for _ in range(2):  # as after a connection that was lost
            connection = Connection(own.url, transport=OURS)
            connection.connect()
            connection.register_with_event_loop(hub)
            connection.register_with_event_loop(hub)
            assert polls() == 1
            connection.release()
        assert polls() == 0
    finally:
        hub.close()


def test_a_prefetch_count_bounds_what_is_taken(connection: Connection, server: redis.Redis) -> None:
    send(connection, *range(5))
    got: list[Any] = []
    consumer = connection.Consumer(queue(), callbacks=[lambda body, message: got.append(message)])
    consumer.qos(prefetch_count=2)
    with consumer:
        for _ in range(4):
            with contextlib.suppress(TimeoutError):
                connection.drain_events(timeout=0.2)
        assert len(got) == 2
        assert server.llen("simple") == 3
        for message in got:
            message.ack()


def test_one_message_can_be_fetched_at_a_time(connection: Connection, server: redis.Redis) -> None:
    send(connection, 1)
    server.rpush("simple", b"\xff")
    channel = connection.default_channel
    assert isinstance(channel, Channel)
    assert channel.basic_get("simple") is None  # what is no message is set aside
    message = channel.basic_get("simple")
    assert message.payload == 1
    message.ack()
    assert channel.basic_get("simple") is None
    assert not server.exists("headrace:leases", "simple")
    server.delete(*LETTERS)


def test_the_name_of_the_transport_is_known_to_kombu() -> None:
    assert Connection(transport=ALIAS).transport_cls == ALIAS
