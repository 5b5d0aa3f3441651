"""kombu's consumers and producers on the transport, without Celery: order, acknowledgement, requeueing."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from kombu import Connection, Exchange, Queue
from kombu.asynchronous import Hub

from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.transport import ALIAS
from headrace_worker.transport.channel import Channel
from headrace_worker.transport.claims import ClaimLimits
from headrace_worker.transport.leases import Leases
from tests.chaos.proxy import Proxy

TRANSPORT = "headrace_worker.transport:Transport"
KEYS = Keys()


@pytest.fixture(scope="module")
def embedded() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis("--appendfsync", "no") as embedded:
        yield embedded


@pytest.fixture
def server(embedded: EmbeddedRedis) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(embedded.url) as server:
        yield server


@pytest.fixture
def connection(embedded: EmbeddedRedis, server: redis.Redis) -> Iterator[Connection]:
    with Connection(embedded.url, transport=TRANSPORT) as connection:
        yield connection
    server.delete("simple")


def queue(name: str = "simple") -> Queue:
    return Queue(name, Exchange(""), routing_key=name)


def receive(connection: Connection, count: int, **options: Any) -> list[Any]:
    """Return the messages that a consumer with these options gets within ten seconds, until there are `count`."""
    messages: list[Any] = []
    with connection.Consumer(queue(), callbacks=[lambda body, message: messages.append(message)], **options):
        deadline = time.monotonic() + 10
        while len(messages) < count and time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                connection.drain_events(timeout=1)
    return messages


def acknowledge_into(bodies: list[Any]) -> list[Any]:
    """Return the callbacks of a consumer that acknowledges messages and appends their bodies."""
    return [lambda body, message: (bodies.append(body), message.ack())]


def send(connection: Connection, *bodies: Any) -> None:
    with connection.Producer() as producer:
        for body in bodies:
            producer.publish(body, routing_key="simple", declare=[queue()])


def test_messages_come_in_order_and_are_deleted_when_acknowledged(
    connection: Connection, server: redis.Redis
) -> None:
    send(connection, *range(10))
    messages = receive(connection, 10)
    assert [message.payload for message in messages] == list(range(10))
    assert server.zcard("headrace:leases") == 10
    for message in messages:
        message.ack()
    assert not server.exists("headrace:leases", "simple")


def test_messages_without_acknowledgement_go_back_when_the_channel_closes(
    embedded: EmbeddedRedis, server: redis.Redis
) -> None:
    with Connection(embedded.url, transport=TRANSPORT) as first:
        send(first, 1, 2, 3)
        _, acknowledged, _ = receive(first, 3)
        acknowledged.ack()
    assert not server.exists("headrace:leases")
    with Connection(embedded.url, transport=TRANSPORT) as second:
        messages = receive(second, 2)
        assert [message.payload for message in messages] == [1, 3]
        assert all(message.headers["redelivered"] for message in messages)
        for message in messages:
            message.ack()


def test_a_requeued_message_comes_again_and_a_rejected_one_does_not(
    connection: Connection, server: redis.Redis
) -> None:
    send(connection, "requeued", "rejected")
    requeued, rejected = receive(connection, 2)
    requeued.requeue()
    rejected.reject()
    (message,) = receive(connection, 1)
    assert message.payload == "requeued"
    message.ack()
    assert not server.exists("headrace:leases", "simple")


def test_a_message_of_a_lost_consumer_is_marked_as_delivered_before(
    connection: Connection, server: redis.Redis
) -> None:
    send(connection, "first", "second")
    server.lpush("simple", b"malformed")
    leases = Leases(server, connection.default_channel.keys)
    for number in range(3):
        leases.claim(f"lost/1/x/{number}", [ClaimLimits(queue="simple")], lease_ms=1)
    time.sleep(0.01)
    for lease in leases.find_expired().leases:
        assert leases.requeue_isolated(lease, "lease_expired", owner="other", only_if_expired=True) == 1
    assert b"malformed" in server.lrange("simple", 0, -1)
    server.lrem("simple", 1, b"malformed")
    messages = receive(connection, 2)
    assert sorted(message.payload for message in messages) == ["first", "second"]
    assert all(message.headers["redelivered"] for message in messages)
    assert all(message.delivery_info["redelivered"] for message in messages)
    for message in messages:
        message.ack()


def test_requeued_messages_come_after_all_that_wait_in_their_order(connection: Connection) -> None:
    send(connection, 1, 2, 3)
    for message in receive(connection, 2):
        message.requeue()
    messages = receive(connection, 3)
    assert [message.payload for message in messages] == [3, 1, 2]
    assert [bool(message.delivery_info.get("redelivered")) for message in messages] == [False, True, True]
    for message in messages:
        message.ack()


def test_without_acknowledgements_there_is_no_lease(connection: Connection, server: redis.Redis) -> None:
    send(connection, 1, 2)
    assert [message.payload for message in receive(connection, 2, no_ack=True)] == [1, 2]
    assert not server.exists("headrace:leases", "simple")


def test_a_consumer_of_replies_starts_no_thread(connection: Connection) -> None:
    before = threading.enumerate()
    send(connection, 1)
    assert len(receive(connection, 1, no_ack=True)) == 1
    assert set(threading.enumerate()) <= set(before)


def test_an_idle_consumer_sends_few_commands(connection: Connection, server: redis.Redis) -> None:
    with connection.Consumer(queue(), callbacks=[lambda body, message: message.ack()]):
        server.config_resetstat()
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=1)
        # A poll is a handful of commands, with those of its script. A busy loop would send thousands.
        assert server.info("stats")["total_commands_processed"] < 400


def test_queues_with_and_without_acknowledgements_do_not_starve_each_other(connection: Connection) -> None:
    bodies: list[Any] = []
    with (
        connection.Consumer(queue("without"), callbacks=[lambda body, message: None], no_ack=True),
        connection.Consumer(queue(), callbacks=acknowledge_into(bodies)),
    ):
        send(connection, 1, 2, 3)
        deadline = time.monotonic() + 10
        while len(bodies) < 3 and time.monotonic() < deadline:
            connection.drain_events(timeout=5)
    assert bodies == [1, 2, 3]


def test_queues_are_emptied_in_order_with_the_priority_strategy(embedded: EmbeddedRedis) -> None:
    options = {"queue_order_strategy": "priority"}
    names = ["high", "medium", "low"]  # their alphabetical order is another
    bodies: list[str] = []
    with Connection(embedded.url, transport=TRANSPORT, transport_options=options) as connection:
        queues = [queue(name) for name in names]
        with connection.Producer() as producer:
            for name in reversed(names * 3):
                producer.publish(name, routing_key=name, declare=[queue(name)])
        with connection.Consumer(queues, callbacks=acknowledge_into(bodies)):
            while len(bodies) < 9:
                connection.drain_events(timeout=10)
    assert bodies == ["high"] * 3 + ["medium"] * 3 + ["low"] * 3


def test_a_consumer_reconnects_after_its_connection_fell_silent(
    embedded: EmbeddedRedis, connection: Connection
) -> None:
    options = {"lease_seconds": 1.0}
    bodies: list[Any] = []
    with (
        Proxy(embedded.port) as proxy,
        Connection(proxy.url, transport=TRANSPORT, transport_options=options) as consuming,
        consuming.Consumer(queue(), callbacks=acknowledge_into(bodies)),
    ):
        with contextlib.suppress(TimeoutError):
            consuming.drain_events(timeout=0.1)
        assert proxy.go_silent()
        send(connection, "late")
        deadline = time.monotonic() + 10
        while not bodies and time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                consuming.drain_events(timeout=1)
    assert bodies == ["late"]


def test_the_poll_ends_with_its_connection(embedded: EmbeddedRedis) -> None:
    hub = Hub()

    def count_polls() -> int:
        entries = [scheduled.entry for scheduled in hub.timer.queue]
        return sum(entry.fun.__name__ == "poll_all" and not entry.cancelled for entry in entries)

    try:
        for _ in range(2):  # as after a lost connection
            connection = Connection(embedded.url, transport=TRANSPORT)
            connection.connect()
            connection.register_with_event_loop(hub)
            connection.register_with_event_loop(hub)
            assert count_polls() == 1
            connection.release()
        assert count_polls() == 0
    finally:
        hub.close()


def test_a_prefetch_count_limits_what_is_claimed(connection: Connection, server: redis.Redis) -> None:
    send(connection, *range(5))
    messages: list[Any] = []
    consumer = connection.Consumer(queue(), callbacks=[lambda body, message: messages.append(message)])
    consumer.qos(prefetch_count=2)
    with consumer:
        for _ in range(4):
            with contextlib.suppress(TimeoutError):
                connection.drain_events(timeout=0.2)
        assert len(messages) == 2
        assert server.llen("simple") == 3
        for message in messages:
            message.ack()


def test_messages_can_be_fetched_one_at_a_time(connection: Connection, server: redis.Redis) -> None:
    send(connection, 1)
    server.rpush("simple", b"\xff")
    channel = connection.default_channel
    assert isinstance(channel, Channel)
    assert channel.basic_get("simple") is None  # the malformed message became a dead letter
    message = channel.basic_get("simple")
    assert message.payload == 1
    message.ack()
    assert channel.basic_get("simple") is None
    assert not server.exists("headrace:leases", "simple")
    server.delete(KEYS.dead, KEYS.dead_messages, KEYS.dead_times)


def test_kombu_knows_the_transport_by_its_name() -> None:
    assert Connection(transport=ALIAS).transport_cls == ALIAS
