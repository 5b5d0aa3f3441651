"""Tests of replaying and purging many dead letters: rates, concurrency, missing letters."""

from __future__ import annotations

import threading
import time

import pytest
import redis

from headrace import AsyncClient, Client, UnknownLetter
from headrace.catalog.published import publish_contract
from headrace.dead_letters.bulk import BulkResult
from headrace.errors import InvalidInput
from headrace.settings import Settings
from headrace.wire.attempts import decode_queued_message
from headrace.wire.keys import Keys
from tests.support.answering_worker import CHURN
from tests.support.stored_dead_letters import (
    NO_IDS,
    ago_ms,
    decode_parts,
    list_ids,
    make_letter,
    make_message,
    store_letter,
    store_malformed,
    stored_ids,
)


def test_ids_without_a_letter_are_missing_in_the_result(client: Client, server: redis.Redis):
    store_letter(server, make_letter("a"))
    assert client.dead_letters.replay(ids=["x", "a", "y"]) == BulkResult(done=1, missing=("x", "y"))
    assert client.dead_letters.purge(ids=["a"]) == BulkResult(missing=("a",))


def test_concurrent_replays_and_purges_handle_each_letter_once(client: Client, server: redis.Redis):
    for number in range(600):
        store_letter(server, make_letter(f"n{number}"))
    results: list[BulkResult] = []
    threads = [
        threading.Thread(target=lambda: results.append(client.dead_letters.replay(model="churn"))),
        threading.Thread(target=lambda: results.append(client.dead_letters.replay(model="churn"))),
        threading.Thread(target=lambda: results.append(client.dead_letters.purge(model="churn"))),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(result.done for result in results) == 600
    waiting = server.lrange("headrace:retried:predict.churn", 0, -1)
    assert len(
        {decode_parts(decode_queued_message(queued_message)[1])["headers"]["id"] for queued_message in waiting}
    ) == len(waiting)
    assert stored_ids(server) == NO_IDS


def test_a_newer_letter_of_the_same_id_is_skipped(client: Client, server: redis.Redis):
    store_letter(server, make_letter("a"), died_ms=ago_ms(60))
    replaced = False

    def replace_letter(_: BulkResult) -> None:
        nonlocal replaced
        if not replaced:
            store_letter(server, make_letter("b", message="newer"))
        replaced = True

    store_letter(server, make_letter("b"), died_ms=ago_ms(50))
    assert client.dead_letters.replay(model="churn", rate=5, on_progress=replace_letter) == BulkResult(
        done=1, already_handled=1
    )
    assert list_ids(client) == ["b"]


def test_letters_that_die_during_a_replay_are_not_part_of_it(client: Client, server: redis.Redis):
    store_letter(server, make_letter("a"), died_ms=ago_ms(60))

    def store_another(_: BulkResult) -> None:
        store_letter(server, make_letter("later"), died_ms=ago_ms(-5))

    assert client.dead_letters.replay(model="churn", on_progress=store_another).done == 1
    assert list_ids(client, ids=["later"]) == []


def test_a_rate_limits_the_replay(client: Client, server: redis.Redis):
    for number in range(12):
        store_letter(server, make_letter(f"n{number}"))
    started = time.monotonic()
    assert client.dead_letters.replay(model="churn", rate=20).done == 12
    assert time.monotonic() - started >= 0.5  # 12 at 20 a second, the first two at once


@pytest.mark.parametrize("rate", [0, -1, float("inf"), float("nan")])
def test_a_wrong_rate_is_refused(client: Client, rate: float):
    with pytest.raises(InvalidInput, match="rate"):
        client.dead_letters.replay(every=True, rate=rate)


def test_a_dry_run_changes_nothing(client: Client, server: redis.Redis):
    store_letter(server, make_letter("a"))
    before = {key: server.dump(key) for key in server.scan_iter()}
    assert client.dead_letters.replay(ids=["a"], dry_run=True) == BulkResult(done=1)
    assert client.dead_letters.purge(ids=["a"], dry_run=True) == BulkResult(done=1)
    assert {key: server.dump(key) for key in server.scan_iter()} == before


def test_a_filter_without_conditions_needs_every(client: Client, server: redis.Redis):
    store_letter(server, make_letter("a"))
    for operation in (client.dead_letters.purge, client.dead_letters.replay):
        for conditions in ({}, {"model": None}):
            with pytest.raises(InvalidInput, match="say which letters"):
                operation(**conditions)
    assert client.dead_letters.purge(ids=[]) == BulkResult()
    assert client.dead_letters.purge(every=True) == BulkResult(done=1)


def test_large_messages_are_replayed_a_few_at_a_time(client: Client, server: redis.Redis):
    large = [{"age": 41, "note": "x" * 300_000}]
    for number in range(20):
        store_letter(server, make_letter(f"n{number}"), make_message(f"n{number}", large))
    assert client.dead_letters.replay(model="churn").done == 20
    assert server.llen("headrace:retried:predict.churn") == 20


def test_a_full_redis_permits_replays_and_purges(client: Client, server: redis.Redis):
    for number in range(3):
        store_letter(server, make_letter(f"n{number}"))
    before = server.config_get("maxmemory")["maxmemory"]
    server.config_set("maxmemory", 1)
    try:
        assert client.dead_letters.replay(ids=["n0"]).done == 1
        assert client.dead_letters.purge(model="churn").done == 2
    finally:
        server.config_set("maxmemory", before)
    assert server.llen("headrace:retried:predict.churn") == 1


def test_the_key_prefix_applies_to_dead_letters(redis_url: str, server: redis.Redis):
    keys = Keys("shop:")
    store_letter(server, make_letter("a"), keys=keys)
    store_letter(server, make_letter("b"), keys=keys)
    with Client(settings=Settings(redis_url=redis_url, key_prefix="shop:")) as client:
        assert client.dead_letters.replay(ids=["a"]).done == 1
        assert client.dead_letters.purge(ids=["b"]).done == 1
    assert set(server.keys()) == {
        b"shop:headrace:retried:predict.churn",
        b"shop:headrace:id:a",
        keys.result("b").encode(),
    }


def test_a_purge_removes_the_matching_letters_only(client: Client, server: redis.Redis):
    store_letter(server, make_letter("a", reason="crash"))
    store_letter(server, make_letter("b"))
    assert client.dead_letters.purge(reason="crash") == BulkResult(done=1)
    assert list_ids(client) == ["b"]
    assert client.dead_letters.purge(reason="permanent") == BulkResult(done=1)
    assert stored_ids(server) == NO_IDS
    assert client.job("a").status() == client.job("b").status() == "failure"


async def test_the_asyncio_client_has_the_same_operations(redis_url: str, server: redis.Redis):
    publish_contract(server, Keys(), CHURN)
    for name in ("a", "b"):
        store_letter(server, make_letter(name), died_ms=ago_ms(60))
    name = store_malformed(server, b"garbage")
    async with AsyncClient(redis_url) as client:
        dead = client.dead_letters
        assert [letter.id async for letter in dead.list()] == ["a", "b", name]
        assert [group.count for group in await dead.groups(model="churn")] == [2]
        assert (await dead.count()).letters == 3
        assert (await dead.show("a")).payload == make_message("a")
        assert [letter.payload async for letter in dead.export(reason="malformed")] == [b"garbage"]
        reports: list[BulkResult] = []
        assert await dead.replay(ids=["a"], rate=50, on_progress=reports.append) == BulkResult(done=1)
        assert reports[-1] == BulkResult(done=1)
        assert await client.job("a").status() == "waiting"
        assert await dead.purge(every=True) == BulkResult(done=2)
        with pytest.raises(UnknownLetter):
            await dead.show("a")
