"""Workers publish their status in Redis, and it is valid for a while."""

from __future__ import annotations

import redis

from headrace.catalog.workers import (
    decode_loaded,
    decode_refused,
    publish_status,
    read_loaded,
    read_refused,
    renew_command,
    sign_of_life_command,
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


def test_the_statuses_of_a_worker_are_as_old_as_its_last_sign_of_life(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        for worker in ("a", "b"):
            execute(client, publish_status(KEYS, "churn", worker, ["1"], {f"{ord(worker)}": "is broken"}))
        now = decode_server_time(client.time())
        for key in (KEYS.loaded("churn"), KEYS.refused("churn")):  # published half a minute ago
            for field, entry in client.hgetall(key).items():
                client.hset(key, field, entry[: entry.rindex(b":")] + b":%d}" % (now - 30_000))
        assert read_status(client) == ({}, {})
        assert execute(client, sign_of_life_command(KEYS, "a")) == [1, 1]
        assert execute(client, sign_of_life_command(KEYS, "a")) == [0, 1]
        execute(client, renew_command(KEYS, ["churn", "other"]))
        assert read_status(client) == ({"a": ("1",)}, {"97": "is broken"})
        assert not client.exists(KEYS.loaded("other"), KEYS.refused("other"))
        client.delete(KEYS.loaded("churn"), KEYS.refused("churn"), KEYS.workers)


def test_a_worker_that_ended_is_forgotten_with_its_statuses(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        execute(client, publish_status(KEYS, "churn", "a", ["1"], {}))
        client.hset(KEYS.loaded("churn"), "ended", '{"versions":["1"],"at_ms":1700000000000}')
        client.zadd(KEYS.workers, {"ended": 1_700_000_000_000})
        execute(client, renew_command(KEYS, ["churn"]))
        assert client.hkeys(KEYS.loaded("churn")) == [b"a"]
        assert not client.exists(KEYS.workers)
        client.delete(KEYS.loaded("churn"))
