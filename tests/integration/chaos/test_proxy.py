"""The proxy of the chaos tests does to connections what its words say."""

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
def through(proxy: Proxy) -> Iterator[redis.Redis]:
    """A client that does not try again by itself."""
    with redis.Redis.from_url(proxy.url, socket_timeout=0.3, retry=None, single_connection_client=True) as client:
        client.ping()
        yield client


def test_bytes_of_any_size_pass_both_ways(through: redis.Redis, server: redis.Redis) -> None:
    value = bytes(range(256)) * 20_000
    through.set("large", value)
    assert server.get("large") == value
    assert through.get("large") == value


def test_a_cut_is_felt_at_once_and_the_next_connection_passes(proxy: Proxy, through: redis.Redis) -> None:
    assert proxy.cut() == 1
    with pytest.raises(redis.ConnectionError):
        through.ping()
    assert through.ping()


def test_connections_are_refused_until_they_are_accepted_again(proxy: Proxy, through: redis.Redis) -> None:
    proxy.cut(refuse=True)
    for _ in range(2):
        with pytest.raises(redis.ConnectionError):
            through.ping()
    proxy.accept()
    assert through.ping()


def test_a_silent_connection_says_nothing_and_new_ones_pass(
    proxy: Proxy, through: redis.Redis, server: redis.Redis
) -> None:
    assert proxy.go_silent() == 1
    with pytest.raises(redis.TimeoutError):
        through.incr("n")
    assert server.get("n") is None
    assert proxy.connections <= 1
    assert through.incr("n") == 1


@pytest.mark.parametrize(("then", "error"), [("cut", redis.ConnectionError), ("silent", redis.TimeoutError)])
def test_a_reply_is_lost_though_the_server_did_what_was_asked(
    proxy: Proxy, through: redis.Redis, server: redis.Redis, then: str, error: type[Exception]
) -> None:
    proxy.lose_reply(b"INCR", then=then)
    assert through.ping()
    with pytest.raises(error):
        through.incr("n")
    assert proxy.wait_lost()
    assert server.get("n") == b"1"
    assert through.incr("n") == 2


def test_replies_that_are_too_short_pass(proxy: Proxy, through: redis.Redis) -> None:
    proxy.lose_reply(b"GET", at_least=100)
    through.set("short", "x" * 10)
    assert through.get("short") == b"x" * 10
    through.set("long", "x" * 200)
    with pytest.raises(redis.ConnectionError):
        through.get("long")
    assert through.get("long") == b"x" * 200


def test_a_delay_holds_what_passes(proxy: Proxy, through: redis.Redis) -> None:
    proxy.delay(0.05)
    began = time.monotonic()
    assert through.ping()
    assert 0.1 <= time.monotonic() - began < 0.3
    proxy.delay(0.5, marker=b"ANOTHER")
    began = time.monotonic()
    assert through.ping()
    assert time.monotonic() - began < 0.3
    proxy.delay(0)


def test_a_server_that_is_away_ends_the_connection(proxy: Proxy, through: redis.Redis) -> None:
    proxy.to_port = 1
    proxy.cut()
    with pytest.raises(redis.ConnectionError):
        through.ping()
    wait_until(lambda: proxy.connections == 0)
