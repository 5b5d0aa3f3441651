"""Tests of listing, grouping, reading and exporting dead letters."""

from __future__ import annotations

import base64
import json
import os
import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import redis

from headrace import Client, UnknownLetter
from headrace.errors import InvalidInput
from headrace.wire.dead_letter import decode_exported
from headrace.wire.keys import Keys
from tests.support.costs import SLACK, processor_seconds
from tests.support.stored_dead_letters import (
    NO_IDS,
    ago_ms,
    crashed_attempt,
    list_ids,
    make_letter,
    make_message,
    store_group,
    store_letter,
    store_malformed,
    stored_ids,
)


def test_letters_are_listed_oldest_first_with_the_moment_they_died(client: Client, server: redis.Redis):
    for name, died in (("young", ago_ms(10)), ("old", ago_ms(100))):
        store_letter(server, make_letter(name), died_ms=died)
    first, second = client.dead_letters.list()
    assert (first.id, second.id) == ("old", "young")
    assert second.died_ms - first.died_ms == pytest.approx(90_000, abs=2000)


def test_letters_are_filtered_by_model_reason_error_and_id(client: Client, server: redis.Redis):
    store_letter(
        server,
        make_letter("a", model="churn", reason="crash", error="WorkerLostError", module="billiard.exceptions"),
    )
    store_letter(server, make_letter("b", model="churn", reason="permanent"))
    store_letter(server, make_letter("c", model="fraud", reason="permanent"))
    assert list_ids(client, model="churn") == ["a", "b"]
    assert list_ids(client, reason="permanent") == ["b", "c"]
    assert list_ids(client, model="churn", reason="permanent") == ["b"]
    assert list_ids(client, error="ValueError") == list_ids(client, error="builtins.ValueError") == ["b", "c"]
    assert list_ids(client, error="billiard.exceptions.WorkerLostError") == ["a"]
    assert list_ids(client, ids=["c", "missing", "a", "a"]) == ["c", "a"]
    assert list_ids(client, ids=["c", "a"], model="fraud") == ["c"]
    assert list_ids(client, ids=[]) == []


def test_letters_are_filtered_by_age(client: Client, server: redis.Redis):
    for name, seconds in (("hours", 7200), ("minutes", 120), ("seconds", 2)):
        store_letter(server, make_letter(name), died_ms=ago_ms(seconds))
    assert list_ids(client, older_than=60) == ["hours", "minutes"]
    assert list_ids(client, newer_than=timedelta(hours=1)) == ["minutes", "seconds"]
    assert list_ids(client, older_than=60, newer_than=3600) == ["minutes"]
    assert list_ids(client, older_than=datetime.now(UTC) - timedelta(hours=1)) == ["hours"]
    assert list_ids(client, ids=["hours", "seconds"], older_than=60) == ["hours"]


def test_a_letter_matches_the_exact_moment_it_died(client: Client, server: redis.Redis):
    moment = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
    store_letter(server, make_letter("a"), died_ms=1767323045678)
    assert list_ids(client, older_than=moment, newer_than=moment) == ["a"]
    assert list_ids(client, older_than=moment - timedelta(milliseconds=1)) == []


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"reason": "bad luck"}, "one of bad input, permanent"),
        ({"older_than": -1}, "negative"),
        ({"older_than": "1h"}, "older_than"),
        ({"newer_than": datetime(2026, 1, 1)}, "time zone"),
        ({"ids": "abc"}, "a list of one"),
    ],
    ids=str,
)
def test_a_wrong_condition_is_refused(client: Client, conditions: dict[str, Any], message: str):
    with pytest.raises(InvalidInput, match=message):
        list_ids(client, **conditions)
    with pytest.raises(InvalidInput, match=message):
        client.dead_letters.purge(**conditions)


def test_an_unknown_condition_is_a_type_error(client: Client, server: redis.Redis):
    store_letter(server, make_letter("a"))
    with pytest.raises(TypeError, match="'modl'"):
        client.dead_letters.purge(modl="churn")
    assert list_ids(client) == ["a"]


def test_letters_that_died_in_the_same_millisecond_are_listed_once(client: Client, server: redis.Redis):
    with server.pipeline(transaction=False) as pipe:
        for number in range(2500):
            pipe.hset(Keys().dead, f"n{number}", make_letter(f"n{number}").encode())
            pipe.zadd(Keys().dead_times, {f"n{number}": 1_700_000_000_000 + number // 900})
        pipe.execute()
    assert sorted(list_ids(client)) == sorted(f"n{number}" for number in range(2500))


def test_an_unreadable_letter_is_listed_and_can_be_purged_but_not_replayed(client: Client, server: redis.Redis):
    store_letter(server, make_letter("a"))
    server.hset(Keys().dead, "a", b"\xff{")
    (unreadable,) = client.dead_letters.list()
    assert (unreadable.id, unreadable.reason, unreadable.error) == ("a", "malformed", "InvalidLetter")
    assert client.dead_letters.replay(ids=["a"]).malformed == 1
    assert client.dead_letters.purge(ids=["a"]).done == 1
    assert stored_ids(server) == NO_IDS


def test_letters_that_differ_in_numbers_are_one_group(client: Client, server: redis.Redis):
    store_group(server, 1500, died_ms=ago_ms(100))
    store_letter(server, make_letter("other", message="something else"))
    group, other = client.dead_letters.groups()
    assert (group.count, other.count) == (1500, 1)
    assert group.message == "row # of group-# cannot be"
    assert group.example == "group-1499"
    assert group.newest_ms - group.oldest_ms == 1499


def test_20_000_letters_are_grouped_in_linear_time_and_in_little_memory(client: Client, server: redis.Redis):
    store_group(server, 2500, died_ms=ago_ms(1000))
    cost_of_2500 = processor_seconds(client.dead_letters.groups)
    store_group(server, 20_000, died_ms=ago_ms(1000))
    assert processor_seconds(client.dead_letters.groups) < 8 * SLACK * cost_of_2500
    tracemalloc.start()
    try:
        (group,) = client.dead_letters.groups()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert group.count == 20_000
    assert peak < 4_000_000


def test_dropped_letters_are_counted(client: Client, server: redis.Redis):
    store_letter(server, make_letter("a"))
    assert (client.dead_letters.count().letters, client.dead_letters.count().dropped) == (1, 0)
    server.set(Keys().dead_dropped, 7)
    assert client.dead_letters.count().dropped == 7


def test_a_letter_is_read_with_its_message(client: Client, server: redis.Redis):
    store_letter(server, make_letter("a", attempts=(crashed_attempt(),), metadata={"by": "billing"}))
    read = client.dead_letters.show("a")
    assert read.attempts == (crashed_attempt(),)
    assert read.metadata == {"by": "billing"}
    assert read.payload == make_message("a")
    assert read.died_ms > 0


def test_a_missing_letter_is_an_error(client: Client):
    with pytest.raises(UnknownLetter, match="there is no dead letter missing"):
        client.dead_letters.show("missing")


def test_an_export_is_decoded_byte_for_byte(client: Client, server: redis.Redis):
    raw = bytes(range(256)) * 5
    store_letter(server, make_letter("a"), died_ms=ago_ms(60))
    name = store_malformed(server, raw)
    lines = [msgspec.json.encode(letter) for letter in client.dead_letters.export()]
    assert all(b"\n" not in line for line in lines)
    first, second = (decode_exported(line) for line in lines)
    assert (first.id, first.payload) == ("a", make_message("a"))
    assert (second.id, second.payload) == (name, raw)
    assert base64.b64decode(json.loads(lines[1])["payload"]) == raw


def test_large_messages_are_exported_a_few_at_a_time(client: Client, server: redis.Redis):
    for number in range(40):
        store_letter(server, make_letter(f"n{number}"), os.urandom(300_000))
    tracemalloc.start()
    try:
        count = sum(1 for _ in client.dead_letters.export())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 40
    assert peak < 8_000_000


def test_a_line_that_is_not_an_export_is_refused():
    with pytest.raises(InvalidInput, match="not an exported dead letter"):
        decode_exported(b'{"id": "a"}')
