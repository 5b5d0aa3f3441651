"""Workers publish their status in Redis, and it is valid for a while."""

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


def read_status(client: redis.Redis, model: str = "churn") -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    now = decode_server_time(client.time())
    loaded = decode_loaded(model, execute(client, read_loaded(KEYS, model)), now)
    refused = decode_refused(model, execute(client, read_refused(KEYS, model)), now)
    return (
        {worker: status.versions for worker, status in loaded.items()},
        {version: error.reason for version, error in refused.items()},
    )


def test_a_worker_publishes_its_status_replaces_it_and_withdraws_it(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        execute(client, publish_status(KEYS, "churn", "a", ["10", "9"], {"11": 'has "another" digest'}))
        execute(client, publish_status(KEYS, "churn", "b", ["9"], {}))
        assert read_status(client) == ({"a": ("9", "10"), "b": ("9",)}, {"11": 'has "another" digest'})
        execute(client, publish_status(KEYS, "churn", "a", ["10", "11"], {}))
        assert read_status(client) == ({"a": ("10", "11"), "b": ("9",)}, {})
        execute(client, publish_status(KEYS, "churn", "a", ["10"], {"12": "is broken"}))
        execute(client, withdraw_status(KEYS, "churn", "a"))
        assert read_status(client) == ({"b": ("9",)}, {})
        assert client.pttl(KEYS.loaded("churn")) > 0  # without any worker, the key expires
        execute(client, withdraw_status(KEYS, "churn", "b"))
        assert client.exists(KEYS.loaded("churn"), KEYS.refused("churn")) == 0


def test_the_next_worker_to_publish_deletes_expired_and_unreadable_entries(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        execute(client, publish_status(KEYS, "churn", "ended", ["1"], {"2": "is broken"}))
        client.hset(KEYS.loaded("churn"), "odd", "no JSON")
        client.hset(KEYS.refused("churn"), "3", "no JSON")
        execute(client, publish_status(KEYS, "churn", "b", ["1"], {}, ttl=-1.0))
        assert list(read_status(client)[0]) == ["b"]
        assert client.hkeys(KEYS.refused("churn")) == []
        execute(client, withdraw_status(KEYS, "churn", "b"))
