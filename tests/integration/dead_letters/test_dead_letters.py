"""Dead letters from the producer's side: found, shown, replayed whole or not at all, purged."""

from __future__ import annotations

import base64
import json
import os
import threading
import time
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import redis

from headrace import AsyncClient, BrokerUnavailable, Client, JobConflict, UnknownLetter, UnknownModel
from headrace.catalog.published import publish_contract
from headrace.connection.commands import execute
from headrace.dead_letters.bulk import BulkResult
from headrace.dead_letters.replay import prepare_replay
from headrace.dead_letters.scripts import LetterResult, replay_command
from headrace.errors import InvalidInput
from headrace.settings import Settings
from headrace.wire.attempts import decode_queued_message
from headrace.wire.dead_letter import decode_exported
from headrace.wire.keys import Keys
from tests.support.answering_worker import CHURN, AnsweringWorker
from tests.support.stored_dead_letters import (
    INSTANCES,
    crashed_attempt,
    decode_parts,
    make_letter,
    make_message,
    store_group,
    store_letter,
    store_malformed,
    stored_ids,
)

NOTHING: dict[str, Any] = {"dead": set(), "messages": set(), "died": set()}


@pytest.fixture
def client(redis_url: str, server: redis.Redis) -> Iterator[Client]:
    publish_contract(server, Keys(), CHURN)
    with Client(redis_url) as client:
        yield client


def ago(seconds: float) -> int:
    """That long ago, as unix milliseconds."""
    return int((time.time() - seconds) * 1000)


# --- find ------------------------------------------------------------------------------------------


def found(client: Client, **which: Any) -> list[str]:
    return [one.id for one in client.dead_letters.list(**which)]


def test_letters_are_met_oldest_first_with_the_moment_they_died(client: Client, server: redis.Redis):
    for name, died in (("young", ago(10)), ("old", ago(100))):
        store_letter(server, make_letter(name), died_ms=died)
    first, second = client.dead_letters.list()
    assert (first.id, second.id) == ("old", "young")
    assert second.died_ms - first.died_ms == pytest.approx(90_000, abs=2000)


def test_letters_are_found_by_what_they_have_in_common(client: Client, server: redis.Redis):
    store_letter(
        server,
        make_letter("a", model="churn", reason="crash", error="WorkerLostError", module="billiard.exceptions"),
    )
    store_letter(server, make_letter("b", model="churn", reason="permanent"))
    store_letter(server, make_letter("c", model="fraud", reason="permanent"))
    assert found(client, model="churn") == ["a", "b"]
    assert found(client, reason="permanent") == ["b", "c"]
    assert found(client, model="churn", reason="permanent") == ["b"]
    assert found(client, error="ValueError") == found(client, error="builtins.ValueError") == ["b", "c"]
    assert found(client, error="billiard.exceptions.WorkerLostError") == ["a"]
    assert found(client, ids=["c", "nobody", "a", "a"]) == ["c", "a"]
    assert found(client, ids=["c", "a"], model="fraud") == ["c"]
    assert found(client, ids=[]) == []


def test_letters_are_found_by_age(client: Client, server: redis.Redis):
    for name, seconds in (("hours", 7200), ("minutes", 120), ("seconds", 2)):
        store_letter(server, make_letter(name), died_ms=ago(seconds))
    assert found(client, older_than=60) == ["hours", "minutes"]
    assert found(client, newer_than=timedelta(hours=1)) == ["minutes", "seconds"]
    assert found(client, older_than=60, newer_than=3600) == ["minutes"]
    assert found(client, older_than=datetime.now(UTC) - timedelta(hours=1)) == ["hours"]
    assert found(client, ids=["hours", "seconds"], older_than=60) == ["hours"]


def test_the_moment_of_a_letter_finds_it(client: Client, server: redis.Redis):
    moment = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
    store_letter(server, make_letter("a"), died_ms=1767323045678)
    assert found(client, older_than=moment, newer_than=moment) == ["a"]
    assert found(client, older_than=moment - timedelta(milliseconds=1)) == []


@pytest.mark.parametrize(
    ("which", "says"),
    [
        ({"reason": "bad luck"}, "one of bad input, permanent"),
        ({"older_than": -1}, "negative"),
        ({"older_than": "1h"}, "older_than"),
        ({"newer_than": datetime(2026, 1, 1)}, "time zone"),
        ({"ids": "abc"}, "a list of one"),
    ],
    ids=str,
)
def test_a_condition_that_cannot_be_is_refused(client: Client, which: dict[str, Any], says: str):
    with pytest.raises(InvalidInput, match=says):
        found(client, **which)
    with pytest.raises(InvalidInput, match=says):
        client.dead_letters.purge(**which)


def test_a_condition_there_is_not_is_a_mistake_of_the_program(client: Client, server: redis.Redis):
    store_letter(server, make_letter("a"))
    with pytest.raises(TypeError, match="'modl'"):
        client.dead_letters.purge(modl="churn")
    assert found(client) == ["a"]


def test_many_letters_of_one_moment_are_met_once_each(client: Client, server: redis.Redis):
    with server.pipeline(transaction=False) as pipe:
        for number in range(2500):
            pipe.hset(Keys().dead, f"n{number}", make_letter(f"n{number}").encode())
            pipe.zadd(Keys().dead_times, {f"n{number}": 1_700_000_000_000 + number // 900})
        pipe.execute()
    assert sorted(found(client)) == sorted(f"n{number}" for number in range(2500))


def test_a_line_nobody_can_read_is_listed_and_can_be_purged_but_not_replayed(client: Client, server: redis.Redis):
    store_letter(server, make_letter("a"))
    server.hset(Keys().dead, "a", b"\xff{")
    (met,) = client.dead_letters.list()
    assert (met.id, met.reason, met.error) == ("a", "malformed", "InvalidLetter")
    assert client.dead_letters.replay(ids=["a"]).malformed == 1
    assert client.dead_letters.purge(ids=["a"]).done == 1
    assert stored_ids(server) == NOTHING


def test_a_storm_is_one_line(client: Client, server: redis.Redis):
    store_group(server, 1500, died_ms=ago(100))
    store_letter(server, make_letter("other", message="something else"))
    storm, other = client.dead_letters.groups()
    assert (storm.count, other.count) == (1500, 1)
    assert storm.message == "row # of group-# cannot be"
    assert storm.example == "group-1499"
    assert storm.newest_ms - storm.oldest_ms == 1499


def test_many_letters_are_counted_quickly_and_in_little_memory(client: Client, server: redis.Redis):
    store_group(server, 20_000, died_ms=ago(1000))
    began = time.monotonic()
    client.dead_letters.groups()
    assert time.monotonic() - began < 5  # half a second on an idle machine
    tracemalloc.start()
    try:
        (storm,) = client.dead_letters.groups()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert storm.count == 20_000
    assert peak < 4_000_000


def test_dropped_letters_are_counted(client: Client, server: redis.Redis):
    store_letter(server, make_letter("a"))
    assert (client.dead_letters.count().letters, client.dead_letters.count().dropped) == (1, 0)
    server.set(Keys().dead_dropped, 7)
    assert client.dead_letters.count().dropped == 7


# --- show and export -------------------------------------------------------------------------------


def test_a_letter_is_shown_with_its_message(client: Client, server: redis.Redis):
    store_letter(server, make_letter("a", attempts=(crashed_attempt(),), metadata={"by": "billing"}))
    shown = client.dead_letters.show("a")
    assert shown.attempts == (crashed_attempt(),)
    assert shown.metadata == {"by": "billing"}
    assert shown.payload == make_message("a")
    assert shown.died_ms > 0


def test_a_letter_there_is_not_is_said_so(client: Client):
    with pytest.raises(UnknownLetter, match="there is no dead letter nobody"):
        client.dead_letters.show("nobody")


def test_an_export_is_read_again_byte_for_byte(client: Client, server: redis.Redis):
    raw = bytes(range(256)) * 5
    store_letter(server, make_letter("a"), died_ms=ago(60))
    name = store_malformed(server, raw)
    lines = [msgspec.json.encode(one) for one in client.dead_letters.export()]
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


def test_a_line_that_is_no_export_is_refused():
    with pytest.raises(InvalidInput, match="not an exported dead letter"):
        decode_exported(b'{"id": "a"}')


# --- replay ----------------------------------------------------------------------------------------


def test_a_replay_puts_the_job_back_whole_and_leaves_nothing_of_the_letter(client: Client, server: redis.Redis):
    store_letter(server, make_letter("a"))
    assert client.dead_letters.replay(ids=["a"]) == BulkResult(done=1)
    (frame,) = server.lrange("predict.churn", 0, -1)
    (attempt,), back = decode_queued_message(frame)
    assert back == make_message("a")
    assert (attempt.cause, attempt.claim_size) == ("replay", 0)
    assert attempt.at_ms == pytest.approx(time.time() * 1000, abs=60_000)
    assert stored_ids(server) == NOTHING
    assert not server.exists(Keys().result("a"))
    assert client.job("a").status() == "queued"


@pytest.mark.parametrize(("priority", "name"), [(0, "predict.churn"), (9, "predict.churn\x06\x169")])
def test_a_replay_keeps_the_priority(client: Client, server: redis.Redis, priority: int, name: str):
    store_letter(server, make_letter("a"), make_message("a", priority=priority))
    client.dead_letters.replay(ids=["a"])
    assert server.llen(name) == 1


def test_a_replay_goes_behind_what_waits(client: Client, server: redis.Redis):
    client.submit("churn", {"age": 1})
    store_letter(server, make_letter("a"))
    client.dead_letters.replay(ids=["a"])
    assert decode_queued_message(server.lrange("predict.churn", 0, -1)[0])[1] == make_message("a")


@pytest.mark.parametrize("cause", ["crash", "lease_expired", "timeout"])
def test_a_job_that_took_its_process_with_it_is_replayed_alone(client: Client, server: redis.Redis, cause: str):
    store_letter(server, make_letter("a", attempts=(crashed_attempt(cause=cause),)))
    client.dead_letters.replay(ids=["a"])
    (frame,) = server.lrange("headrace:isolated:predict.churn", 0, -1)
    assert [attempt.cause for attempt in decode_queued_message(frame)[0]] == [cause, "replay"]


def test_a_job_that_met_errors_is_replayed_with_others(client: Client, server: redis.Redis):
    store_letter(server, make_letter("a", attempts=(crashed_attempt(cause="error:TimeoutError"),)))
    client.dead_letters.replay(ids=["a"])
    assert server.llen("predict.churn") == 1


def test_the_deadline_and_the_delay_of_the_first_time_are_dropped(client: Client, server: redis.Redis):
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    given = make_message("a", eta=long_ago, expires=long_ago + timedelta(days=1), version="3", metadata={"x": "1"})
    store_letter(server, make_letter("a"), given)
    client.dead_letters.replay(ids=["a"])
    now, then = decode_parts(decode_queued_message(server.lindex("predict.churn", 0))[1]), decode_parts(given)
    assert (now["headers"]["eta"], now["headers"]["expires"]) == (None, None)
    then["headers"].update(eta=None, expires=None)
    assert now == then


def test_a_replay_to_another_version_changes_nothing_else(client: Client, server: redis.Redis):
    publish_contract(server, Keys(), msgspec.structs.replace(CHURN, version="4"))
    instances = [{"age": 41.10000000000001, "name": "Zoë"}]
    given = make_message("a", instances, version="3", method="predict", metadata={"x": "1"})
    store_letter(server, make_letter("a"), given)
    client.dead_letters.replay(ids=["a"], version="4")
    now, then = decode_parts(decode_queued_message(server.lindex("predict.churn", 0))[1]), decode_parts(given)
    body, before = (json.loads(base64.b64decode(one.pop("body"))) for one in (now, then))
    assert body[1] == {"version": "4", "method": "predict", "metadata": {"x": "1"}}
    assert (body[0], body[2]) == (before[0], before[2])
    then["headers"]["argsrepr"] = "churn@4, 1 instance"
    assert now == then


def test_a_replay_to_a_version_there_is_not_replays_nothing(client: Client, server: redis.Redis):
    store_letter(server, make_letter("a"))
    for dry_run in (True, False):
        with pytest.raises(UnknownModel, match="has no version '9'; it has 3"):
            client.dead_letters.replay(ids=["a"], version="9", dry_run=dry_run)
    for version in ("latest", "", "3 "):
        with pytest.raises(InvalidInput, match="a number as text"):
            client.dead_letters.replay(ids=["a"], version=version)
    assert found(client) == ["a"]


def test_the_outcome_of_the_replay_is_the_outcome_of_the_job(client: Client, server: redis.Redis, redis_url: str):
    store_letter(server, make_letter("a"))
    assert client.job("a").status() == "failure"
    client.dead_letters.replay(ids=["a"])
    answers: list[Any] = []
    waiter = threading.Thread(target=lambda: answers.append(client.job("a").result(timeout=20).prediction))
    waiter.start()
    with AnsweringWorker(redis_url):
        waiter.join()
    assert answers == [82]
    assert client.job("a").status() == "success"


def test_the_submitter_who_waits_again_hears_of_the_replay(client: Client, server: redis.Redis, redis_url: str):
    jobs = client.submit_many("churn", INSTANCES * 20)
    for job in jobs:
        store_letter(server, make_letter(job.id), server.rpop("predict.churn"))
    client.dead_letters.replay(model="churn")
    with AnsweringWorker(redis_url):
        assert {job.result().prediction for job in client.as_completed(jobs, timeout=20)} == {82}


def test_a_replayed_job_can_be_cancelled(client: Client, server: redis.Redis):
    store_letter(server, make_letter("a"))
    client.dead_letters.replay(ids=["a"])
    assert client.job("a").cancel()
    assert client.job("a").status() == "cancelled"


def test_an_id_is_protected_again_after_a_replay(client: Client, server: redis.Redis):
    job = client.submit("churn", {"age": 41}, id="a")
    payload = server.rpop("predict.churn")
    server.delete(Keys().job("a"))  # forgotten, as it is a day after it failed
    store_letter(server, make_letter("a"), payload, with_outcome=False)
    client.dead_letters.replay(ids=["a"])
    assert client.submit("churn", {"age": 41}, id="a").id == job.id
    assert server.llen("predict.churn") == 1
    with pytest.raises(JobConflict):
        client.submit("churn", {"age": 42}, id="a")
    assert server.ttl(Keys().job("a")) > 86_400


def test_a_replay_never_touches_another_job_of_the_same_id(client: Client, server: redis.Redis, redis_url: str):
    store_letter(server, make_letter("a"), with_outcome=False)
    with AnsweringWorker(redis_url):
        client.submit("churn", {"age": 1}, id="a").result(timeout=20)
    assert client.dead_letters.replay(ids=["a"]) == BulkResult(id_in_use=1)
    assert client.job("a").result().prediction == 2
    store_letter(server, make_letter("b"), with_outcome=False)
    client.submit("churn", {"age": 1}, id="b")
    assert client.dead_letters.replay(ids=["b"]) == BulkResult(id_in_use=1)
    assert found(client) == ["a", "b"]
    assert server.llen("predict.churn") == 1


def test_bytes_that_are_no_job_stay(client: Client, server: redis.Redis):
    name = store_malformed(server, b"\x00garbage")
    store_letter(server, make_letter("a"))
    assert client.dead_letters.replay(every=True, dry_run=True) == BulkResult(done=1, malformed=1)
    assert client.dead_letters.replay(every=True) == BulkResult(done=1, malformed=1)
    assert found(client) == [name]


def test_a_job_whose_arguments_are_none_can_be_replayed(client: Client, server: redis.Redis):
    raw = decode_parts(make_message("a"))
    raw["body"] = base64.b64encode(b'[["churn"],{},{}]').decode()
    store_letter(server, make_letter("a", model=None, reason="bad input"), json.dumps(raw).encode())
    assert client.dead_letters.replay(ids=["a"], version="3").done == 1


def test_a_message_of_plain_celery_with_any_priority_is_replayed(client: Client, server: redis.Redis):
    for name, priority in (("a", 255), ("b", -1), ("c", None)):
        raw = decode_parts(make_message(name))
        raw["properties"]["priority"] = priority
        store_letter(server, make_letter(name), json.dumps(raw).encode())
    assert client.dead_letters.replay(model="churn").done == 3
    assert server.llen("predict.churn\x06\x169") == 1
    assert server.llen("predict.churn") == 2


def test_an_id_asked_for_that_is_not_there_is_told(client: Client, server: redis.Redis):
    store_letter(server, make_letter("a"))
    assert client.dead_letters.replay(ids=["x", "a", "y"]) == BulkResult(done=1, missing=("x", "y"))
    assert client.dead_letters.purge(ids=["a"]) == BulkResult(missing=("a",))


def test_two_replays_at_once_replay_each_letter_once(client: Client, server: redis.Redis):
    for number in range(600):
        store_letter(server, make_letter(f"n{number}"))
    tallies: list[BulkResult] = []
    threads = [
        threading.Thread(target=lambda: tallies.append(client.dead_letters.replay(model="churn"))),
        threading.Thread(target=lambda: tallies.append(client.dead_letters.replay(model="churn"))),
        threading.Thread(target=lambda: tallies.append(client.dead_letters.purge(model="churn"))),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(tally.done for tally in tallies) == 600
    waiting = server.lrange("predict.churn", 0, -1)
    assert len({decode_parts(decode_queued_message(frame)[1])["headers"]["id"] for frame in waiting}) == len(
        waiting
    )
    assert stored_ids(server) == NOTHING


def test_a_letter_that_died_again_meanwhile_is_not_the_one_meant(client: Client, server: redis.Redis):
    store_letter(server, make_letter("a"), died_ms=ago(60))
    seen: list[BulkResult] = []

    def die_again(tally: BulkResult) -> None:
        if not seen:
            store_letter(server, make_letter("b", message="died anew"))
        seen.append(tally)

    store_letter(server, make_letter("b"), died_ms=ago(50))
    assert client.dead_letters.replay(model="churn", rate=5, on_progress=die_again) == BulkResult(
        done=1, already_handled=1
    )
    assert found(client) == ["b"]


def test_a_letter_that_died_again_between_reading_and_replaying_stays(client: Client, server: redis.Redis):
    store_letter(server, make_letter("a"), died_ms=ago(60))
    ready = prepare_replay(client.dead_letters.show("a"), replayed_by="me", now_ms=ago(0), version=None)
    store_letter(server, make_letter("a", message="died anew"))
    assert execute(server, replay_command(Keys(), [ready], record_ttl=60)) == [LetterResult.ALREADY_HANDLED]
    assert client.dead_letters.show("a").message == "died anew"
    assert not server.exists("predict.churn")


def test_letters_that_die_during_a_replay_are_left_for_the_next(client: Client, server: redis.Redis):
    store_letter(server, make_letter("a"), died_ms=ago(60))

    def another(_: BulkResult) -> None:
        store_letter(server, make_letter("later"), died_ms=ago(-5))

    assert client.dead_letters.replay(model="churn", on_progress=another).done == 1
    assert found(client, ids=["later"]) == []


def test_a_rate_is_kept(client: Client, server: redis.Redis):
    for number in range(12):
        store_letter(server, make_letter(f"n{number}"))
    began = time.monotonic()
    assert client.dead_letters.replay(model="churn", rate=20).done == 12
    assert 0.5 < time.monotonic() - began < 5


@pytest.mark.parametrize("rate", [0, -1, float("inf"), float("nan")])
def test_a_rate_that_cannot_be_is_refused(client: Client, rate: float):
    with pytest.raises(InvalidInput, match="rate"):
        client.dead_letters.replay(every=True, rate=rate)


def test_a_dry_run_changes_nothing(client: Client, server: redis.Redis):
    store_letter(server, make_letter("a"))
    before = {key: server.dump(key) for key in server.scan_iter()}
    assert client.dead_letters.replay(ids=["a"], dry_run=True) == BulkResult(done=1)
    assert client.dead_letters.purge(ids=["a"], dry_run=True) == BulkResult(done=1)
    assert {key: server.dump(key) for key in server.scan_iter()} == before


def test_every_letter_is_only_meant_when_said_so(client: Client, server: redis.Redis):
    store_letter(server, make_letter("a"))
    for act in (client.dead_letters.purge, client.dead_letters.replay):
        for nothing in ({}, {"model": None}):
            with pytest.raises(InvalidInput, match="say which letters"):
                act(**nothing)
    assert client.dead_letters.purge(ids=[]) == BulkResult()
    assert client.dead_letters.purge(every=True) == BulkResult(done=1)


def test_large_messages_are_replayed_a_few_at_a_time(client: Client, server: redis.Redis):
    big = [{"age": 41, "note": "x" * 300_000}]
    for number in range(20):
        store_letter(server, make_letter(f"n{number}"), make_message(f"n{number}", big))
    assert client.dead_letters.replay(model="churn").done == 20
    assert server.llen("predict.churn") == 20


def test_a_replay_that_fails_in_the_middle_loses_nothing(client: Client, server: redis.Redis):
    store_letter(server, make_letter("a"))
    server.set("predict.churn", "a key of another kind")
    with pytest.raises(BrokerUnavailable, match="something else"):
        client.dead_letters.replay(ids=["a"])
    assert found(client) == ["a"]
    assert client.job("a").status() == "failure"


def test_a_replay_works_in_a_full_redis(client: Client, server: redis.Redis):
    for number in range(3):
        store_letter(server, make_letter(f"n{number}"))
    before = server.config_get("maxmemory")["maxmemory"]
    server.config_set("maxmemory", 1)
    try:
        assert client.dead_letters.replay(ids=["n0"]).done == 1
        assert client.dead_letters.purge(model="churn").done == 2
    finally:
        server.config_set("maxmemory", before)
    assert server.llen("predict.churn") == 1


def test_a_key_prefix_holds_for_letters_too(redis_url: str, server: redis.Redis):
    keys = Keys("shop:")
    store_letter(server, make_letter("a"), keys=keys)
    store_letter(server, make_letter("b"), keys=keys)
    with Client(settings=Settings(redis_url=redis_url, key_prefix="shop:")) as client:
        assert client.dead_letters.replay(ids=["a"]).done == 1
        assert client.dead_letters.purge(ids=["b"]).done == 1
    assert set(server.keys()) == {b"shop:predict.churn", b"shop:headrace:id:a", keys.result("b").encode()}


# --- purge -----------------------------------------------------------------------------------------


def test_a_purge_removes_what_it_is_told_to_and_nothing_else(client: Client, server: redis.Redis):
    store_letter(server, make_letter("a", reason="crash"))
    store_letter(server, make_letter("b"))
    assert client.dead_letters.purge(reason="crash") == BulkResult(done=1)
    assert found(client) == ["b"]
    assert client.dead_letters.purge(reason="permanent") == BulkResult(done=1)
    assert stored_ids(server) == NOTHING
    assert client.job("a").status() == client.job("b").status() == "failure"


# --- asyncio ---------------------------------------------------------------------------------------


async def test_asyncio_has_the_same_with_await(redis_url: str, server: redis.Redis):
    publish_contract(server, Keys(), CHURN)
    for name in ("a", "b"):
        store_letter(server, make_letter(name), died_ms=ago(60))
    name = store_malformed(server, b"garbage")
    async with AsyncClient(redis_url) as client:
        dead = client.dead_letters
        assert [one.id async for one in dead.list()] == ["a", "b", name]
        assert [storm.count for storm in await dead.groups(model="churn")] == [2]
        assert (await dead.count()).letters == 3
        assert (await dead.show("a")).payload == make_message("a")
        assert [one.payload async for one in dead.export(reason="malformed")] == [b"garbage"]
        seen: list[BulkResult] = []
        assert await dead.replay(ids=["a"], rate=50, on_progress=seen.append) == BulkResult(done=1)
        assert seen[-1] == BulkResult(done=1)
        assert await client.job("a").status() == "queued"
        assert await dead.purge(every=True) == BulkResult(done=2)
        with pytest.raises(UnknownLetter):
            await dead.show("a")
