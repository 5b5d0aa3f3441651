"""What workers tell in Redis of the versions they have, and how long it is believed."""

from __future__ import annotations

import redis

from headrace.catalog.workers import (
    decode_loaded,
    decode_refused,
    publish_status,
    read_loaded,
    read_refused,
    withdraw_status,
)
from headrace.connection.commands import execute
from headrace.connection.server_time import decode_server_time
from headrace.wire.keys import Keys

KEYS = Keys("loaded-test:")


def said(client: redis.Redis, model: str = "churn") -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    now = decode_server_time(client.time())
    have = decode_loaded(execute(client, read_loaded(KEYS, model)), now)
    wrong = decode_refused(execute(client, read_refused(KEYS, model)), now)
    return {name: one.versions for name, one in have.items()}, {name: one.reason for name, one in wrong.items()}


def test_a_worker_says_what_it_has_and_refuses_and_takes_it_back(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        execute(client, publish_status(KEYS, "churn", "a", ["10", "9"], {"11": 'has "another" digest'}))
        execute(client, publish_status(KEYS, "churn", "b", ["9"], {}))
        assert said(client) == ({"a": ("9", "10"), "b": ("9",)}, {"11": 'has "another" digest'})
        execute(client, publish_status(KEYS, "churn", "a", ["10", "11"], {}))
        assert said(client) == ({"a": ("10", "11"), "b": ("9",)}, {})
        execute(client, publish_status(KEYS, "churn", "a", ["10"], {"12": "is broken"}))
        execute(client, withdraw_status(KEYS, "churn", "a"))
        assert said(client) == ({"b": ("9",)}, {})
        assert client.pttl(KEYS.loaded("churn")) > 0  # when nobody is left to tell, it goes by itself
        execute(client, withdraw_status(KEYS, "churn", "b"))
        assert client.exists(KEYS.loaded("churn"), KEYS.refused("churn")) == 0


def test_who_is_silent_is_dropped_when_another_speaks_and_so_is_what_cannot_be_read(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        execute(client, publish_status(KEYS, "churn", "gone", ["1"], {"2": "is broken"}))
        client.hset(KEYS.loaded("churn"), "odd", "no JSON")
        client.hset(KEYS.refused("churn"), "3", "no JSON")
        execute(client, publish_status(KEYS, "churn", "b", ["1"], {}, ttl=-1.0))
        assert list(said(client)[0]) == ["b"]
        assert client.hkeys(KEYS.refused("churn")) == []
        execute(client, withdraw_status(KEYS, "churn", "b"))
