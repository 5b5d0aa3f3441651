"""The proxy of the chaos tests cuts, delays and silences connections."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import redis

from tests.chaos.proxy import Proxy
from tests.support.waiting import wait_until


@pytest.fixture
def proxy(redis_url: str) -> Iterator[Proxy]:
    with Proxy(int(redis_url.rsplit(":", 1)[1].split("/")[0])) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: Proxy) -> Iterator[redis.Redis]:
    """Connect a client through the proxy, without retries."""
    with redis.Redis.from_url(proxy.url, socket_timeout=1, retry=None, single_connection_client=True) as client:
        client.ping()
        yield client


def test_values_of_any_size_pass_in_both_directions(client: redis.Redis, server: redis.Redis) -> None:
    value = bytes(range(256)) * 20_000
    client.set("large", value)
    assert server.get("large") == value
    assert client.get("large") == value


def test_a_cut_is_an_error_at_once_and_the_next_connection_passes(proxy: Proxy, client: redis.Redis) -> None:
    assert proxy.cut() == 1
    with pytest.raises(redis.ConnectionError):
        client.ping()
    assert client.ping()


def test_connections_are_refused_until_they_are_accepted(proxy: Proxy, client: redis.Redis) -> None:
    proxy.cut(refuse=True)
    for _ in range(2):
        with pytest.raises(redis.ConnectionError):
            client.ping()
    proxy.accept()
    assert client.ping()


def test_a_silent_connection_does_not_answer_and_new_ones_pass(
    proxy: Proxy, client: redis.Redis, server: redis.Redis
) -> None:
    assert proxy.go_silent() == 1
    with pytest.raises(redis.TimeoutError):
        client.incr("n")
    assert server.get("n") is None
    assert proxy.connections <= 1
    assert client.incr("n") == 1


@pytest.mark.parametrize(("then", "error"), [("cut", redis.ConnectionError), ("silent", redis.TimeoutError)])
def test_a_reply_is_lost_although_the_server_ran_the_command(
    proxy: Proxy, client: redis.Redis, server: redis.Redis, then: str, error: type[Exception]
) -> None:
    proxy.lose_reply(b"INCR", then=then)
    assert client.ping()
    with pytest.raises(error):
        client.incr("n")
    assert proxy.wait_lost()
    assert server.get("n") == b"1"
    assert client.incr("n") == 2


def test_a_minimum_size_lets_short_replies_pass(proxy: Proxy, client: redis.Redis) -> None:
    proxy.lose_reply(b"GET", min_bytes=100)
    client.set("short", "x" * 10)
    assert client.get("short") == b"x" * 10
    client.set("long", "x" * 200)
    with pytest.raises(redis.ConnectionError):
        client.get("long")
    assert client.get("long") == b"x" * 200


def test_a_delay_delays_replies(proxy: Proxy, client: redis.Redis) -> None:
    proxy.delay(0.05)
    started = time.monotonic()
    assert client.ping()
    assert time.monotonic() - started >= 0.1
    proxy.delay(60, marker=b"ANOTHER")
    assert client.ping(), "delayed, it would have timed out"
    proxy.delay(0)


def test_an_unreachable_server_ends_the_connection(proxy: Proxy, client: redis.Redis) -> None:
    proxy.to_port = 1
    proxy.cut()
    with pytest.raises(redis.ConnectionError):
        client.ping()
    wait_until(lambda: proxy.connections == 0)
