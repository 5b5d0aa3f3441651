"""Callers of the gateway in Redis: added, changed, rotated, revoked."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec
import pytest
import redis

from headrace.catalog import callers
from headrace.catalog.api_keys import MAX_KEY_LENGTH, digest_api_key, make_api_key, read_caller_name
from headrace.catalog.callers import Rate, RegisteredCaller, parse_rate
from headrace.connection.commands import Operation, execute, run
from headrace.errors import HeadraceError, InvalidInput, StoredDataError
from headrace.wire.keys import Keys

Ask = Callable[[Operation[Any]], Any]
KEYS, NOW = Keys(), datetime(2030, 1, 1, tzinfo=UTC)
NEW = RegisteredCaller(secrets=(), models=("churn",), rate=Rate(5))


@pytest.fixture
def ask(server: redis.Redis) -> Ask:
    """Run an operation."""
    return partial(run, partial(execute, server))


def digests(ask: Ask, name: str = "shop") -> list[str]:
    return [secret.digest for secret in ask(callers.read_callers(KEYS))[name].secrets]


def test_a_key_names_its_caller_and_holds_256_random_bits():
    names = ["a", "shop", "big_shop-2", "x" * 32]
    keys = [make_api_key(name) for name in names for _ in range(50)]
    assert len(set(keys)) == len(keys)
    assert {len(key.rpartition("_")[2]) for key in keys} == {43}
    assert max(map(len, keys)) == MAX_KEY_LENGTH
    assert [read_caller_name(key) for key in keys] == [name for name in names for _ in range(50)]
    assert {key[-43:][position] for key in keys for position in (0, 20, 41)} > set("059AZaz")


@pytest.mark.parametrize("name", ["", "a.b", "ä", "_x", "x" * 33, "a b", "a\n"])
def test_a_name_that_could_meet_another_callers_is_refused(ask: Ask, name: str):
    with pytest.raises(InvalidInput, match="1 to 32 letters"):
        ask(callers.add_caller(KEYS, name, NEW, NOW))


def test_redis_holds_the_digest_of_a_key_and_not_the_key(ask: Ask, server: redis.Redis):
    key = ask(callers.add_caller(KEYS, "shop", NEW, NOW))
    stored = server.hget(KEYS.callers, "shop")
    assert key.encode() not in stored
    assert key.rpartition("_")[2].encode() not in stored
    assert digests(ask) == [digest_api_key(key)]
    assert ask(callers.read_callers(KEYS))["shop"].models == ("churn",)


def test_a_name_in_use_is_not_added_again(ask: Ask):
    key = ask(callers.add_caller(KEYS, "shop", NEW, NOW))
    with pytest.raises(InvalidInput, match="already; change its limits with `headrace keys change`"):
        ask(callers.add_caller(KEYS, "shop", NEW, NOW))
    assert digests(ask) == [digest_api_key(key)]


def test_a_rotation_leaves_two_keys_and_the_next_ends_the_oldest(ask: Ask):
    keys = [ask(callers.add_caller(KEYS, "shop", NEW, NOW))]
    for _ in range(3):
        keys.append(ask(callers.rotate_key(KEYS, "shop", NOW)))
        assert digests(ask) == [digest_api_key(key) for key in keys[-2:]]
    assert ask(callers.revoke_old_keys(KEYS, "shop")) == 1
    assert digests(ask) == [digest_api_key(keys[-1])]
    assert ask(callers.revoke_old_keys(KEYS, "shop")) == 0


def test_a_change_keeps_the_keys(ask: Ask):
    key = ask(callers.add_caller(KEYS, "shop", NEW, NOW))
    changed = ask(
        callers.change_caller(KEYS, "shop", lambda old: msgspec.structs.replace(old, rate=None, waiting=3))
    )
    assert (changed.rate, changed.waiting, changed.models) == (None, 3, ("churn",))
    assert digests(ask) == [digest_api_key(key)]


@pytest.mark.parametrize(
    "operation",
    [
        lambda: callers.rotate_key(KEYS, "shopp", NOW),
        lambda: callers.revoke_old_keys(KEYS, "shopp"),
        lambda: callers.remove_caller(KEYS, "shopp"),
        lambda: callers.change_caller(KEYS, "shopp", lambda old: old),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest(ask: Ask, operation: Any):
    ask(callers.add_caller(KEYS, "shop", NEW, NOW))
    with pytest.raises(InvalidInput, match="no caller 'shopp'; did you mean 'shop'"):
        ask(operation())
    assert set(ask(callers.read_callers(KEYS))) == {"shop"}


def test_two_operators_who_change_a_caller_at_once_lose_nothing(ask: Ask, server: redis.Redis):
    ask(callers.add_caller(KEYS, "shop", NEW, NOW))
    others = iter([{"waiting": 7}, {"max_rows": 9}])

    def change(old: RegisteredCaller) -> RegisteredCaller:
        if (meanwhile := next(others, None)) is not None:
            stored = msgspec.json.encode(msgspec.structs.replace(old, **meanwhile))
            server.hset(KEYS.callers, "shop", stored)
        return msgspec.structs.replace(old, rate=None)

    changed = ask(callers.change_caller(KEYS, "shop", change))
    assert (changed.waiting, changed.max_rows, changed.rate) == (7, 9, None)
    assert ask(callers.read_callers(KEYS))["shop"] == changed


def test_a_caller_that_changes_all_the_time_is_told(ask: Ask, server: redis.Redis):
    ask(callers.add_caller(KEYS, "shop", NEW, NOW))
    numbers = iter(range(1, 100))

    def change(old: RegisteredCaller) -> RegisteredCaller:
        server.hset(KEYS.callers, "shop", msgspec.json.encode(msgspec.structs.replace(old, waiting=next(numbers))))
        return old

    with pytest.raises(HeadraceError, match="try again"):
        ask(callers.change_caller(KEYS, "shop", change))


@pytest.mark.parametrize("damaged", [b"", b"{}", b"\xff", b"[]", b'{"secrets":1}', b'{"secrets":[{"digest":3}]}'])
def test_a_damaged_caller_is_left_out_and_can_be_removed(
    ask: Ask, server: redis.Redis, damaged: bytes, caplog: pytest.LogCaptureFixture
):
    ask(callers.add_caller(KEYS, "shop", NEW, NOW))
    server.hset(KEYS.callers, "broken", damaged)
    assert set(ask(callers.read_callers(KEYS))) == {"shop"}
    with pytest.raises(StoredDataError, match="headrace keys revoke broken"):
        ask(callers.rotate_key(KEYS, "broken", NOW))
    ask(callers.remove_caller(KEYS, "broken"))
    assert server.hkeys(KEYS.callers) == [b"shop"]


@pytest.mark.parametrize(
    ("text", "rate"),
    [("500/s", Rate(500)), ("500", Rate(500)), ("100/m", Rate(100, 60)), ("1000000/h", Rate(1_000_000, 3600))],
)
def test_a_rate_is_jobs_in_a_second_a_minute_or_an_hour(text: str, rate: Rate):
    assert parse_rate(text) == rate
    assert parse_rate(str(rate)) == rate


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5/s", "1/d", "1000001", "1/s/s", "5 /s", "٣/s", "1e3", "1/"])
def test_another_text_is_no_rate(text: str):
    with pytest.raises(InvalidInput, match=re.escape("a rate is 1 to 1,000,000 jobs")):
        parse_rate(text)
