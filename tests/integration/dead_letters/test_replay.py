"""Tests of the replay of a dead letter: its message, its version, its outcome."""

from __future__ import annotations

import base64
import json
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import redis

from headrace import BrokerUnavailable, Client, JobConflict, UnknownModel
from headrace.catalog.published import publish_contract
from headrace.connection.commands import execute
from headrace.dead_letters.bulk import BulkResult
from headrace.dead_letters.replay import prepare_replay
from headrace.dead_letters.scripts import LetterResult, replay_command
from headrace.errors import InvalidInput
from headrace.wire.attempts import decode_queued_message
from headrace.wire.keys import Keys
from headrace.wire.message import NOTIFY_HEADER, OWNER_HEADER
from headrace.wire.record import DIGEST_BYTES, NOTIFY_MARK, decode_record
from tests.support.answering_worker import CHURN, AnsweringWorker
from tests.support.stored_dead_letters import (
    INSTANCES,
    NO_IDS,
    ago_ms,
    crashed_attempt,
    decode_parts,
    list_ids,
    make_letter,
    make_message,
    store_letter,
    store_malformed,
    stored_ids,
)

#: The list of the jobs that run again, of priority 0.
RETRIED = Keys().retried("predict.churn")[0]


def test_a_replay_queues_the_unchanged_message_and_removes_the_letter(client: Client, server: redis.Redis):
    store_letter(server, make_letter("a"))
    assert client.dead_letters.replay(ids=["a"]) == BulkResult(done=1)
    (queued_message,) = server.lrange(RETRIED, 0, -1)
    (attempt,), message = decode_queued_message(queued_message)
    assert message == make_message("a")
    assert (attempt.cause, attempt.claim_size) == ("replay", 0)
    assert attempt.at_ms == pytest.approx(time.time() * 1000, abs=60_000)
    assert stored_ids(server) == NO_IDS
    assert not server.exists(Keys().result("a"))
    assert client.job("a").status() == "waiting"


@pytest.mark.parametrize(("priority", "name"), [(0, RETRIED), (9, f"{RETRIED}\x06\x169")])
def test_a_replay_keeps_the_priority(client: Client, server: redis.Redis, priority: int, name: str):
    store_letter(server, make_letter("a"), make_message("a", priority=priority))
    client.dead_letters.replay(ids=["a"])
    assert server.llen(name) == 1


def test_a_replayed_job_is_queued_behind_the_jobs_replayed_before(client: Client, server: redis.Redis):
    for job in ("a", "b"):
        store_letter(server, make_letter(job))
        client.dead_letters.replay(ids=[job])
    assert decode_queued_message(server.lrange(RETRIED, 0, -1)[0])[1] == make_message("b")


@pytest.mark.parametrize("cause", ["crash", "lease_expired", "timeout"])
def test_a_job_whose_process_or_worker_was_lost_is_isolated(client: Client, server: redis.Redis, cause: str):
    store_letter(server, make_letter("a", attempts=(crashed_attempt(cause=cause),)))
    client.dead_letters.replay(ids=["a"])
    (queued_message,) = server.lrange("headrace:isolated:predict.churn", 0, -1)
    assert [attempt.cause for attempt in decode_queued_message(queued_message)[0]] == [cause, "replay"]


def test_a_job_that_only_failed_with_errors_is_not_isolated(client: Client, server: redis.Redis):
    store_letter(server, make_letter("a", attempts=(crashed_attempt(cause="error:TimeoutError"),)))
    client.dead_letters.replay(ids=["a"])
    assert server.llen(RETRIED) == 1


def test_the_deadline_and_the_delay_are_dropped(client: Client, server: redis.Redis):
    eta = datetime(2020, 1, 1, tzinfo=UTC)
    expires = eta + timedelta(days=1)
    original = make_message("a", eta=eta, expires=expires, version="3", metadata={"x": "1"})
    store_letter(server, make_letter("a"), original)
    client.dead_letters.replay(ids=["a"])
    replayed = decode_parts(decode_queued_message(server.lindex(RETRIED, 0))[1])
    expected = decode_parts(original)
    assert (replayed["headers"]["eta"], replayed["headers"]["expires"]) == (None, None)
    expected["headers"].update(eta=None, expires=None)
    assert replayed == expected


@pytest.mark.parametrize("changes", [{}, {"eta": datetime(2020, 1, 1, tzinfo=UTC)}, {"trace": {"baggage": "a=1"}}])
def test_a_replay_writes_the_owner_and_the_notice_of_a_lost_record_again(
    client: Client, server: redis.Redis, changes: dict[str, Any]
):
    store_letter(server, make_letter("a"), make_message("a", owner="shop", notify="orders", **changes))
    client.dead_letters.replay(ids=["a"])
    stored = server.get(Keys().job("a"))
    record = decode_record("a", stored)
    assert (record.owner, record.notify) == ("shop", "orders")
    assert stored[DIGEST_BYTES:].startswith(NOTIFY_MARK)
    headers = decode_parts(decode_queued_message(server.lindex(RETRIED, 0))[1])["headers"]
    assert (headers[OWNER_HEADER], headers[NOTIFY_HEADER]) == ("shop", "orders")


@pytest.mark.parametrize("name", ["a.b", "", 7, None, ["shop"], 'a"'])
def test_a_header_that_is_no_name_is_no_owner_and_no_notice(client: Client, server: redis.Redis, name: Any):
    message = json.loads(make_message("a"))
    message["headers"] |= {OWNER_HEADER: name, NOTIFY_HEADER: name}
    store_letter(server, make_letter("a"), json.dumps(message).encode())
    client.dead_letters.replay(ids=["a"])
    record = decode_record("a", server.get(Keys().job("a")))
    assert (record.owner, record.notify) == (None, None)


def test_a_replay_to_another_version_changes_nothing_else(client: Client, server: redis.Redis):
    publish_contract(server, Keys(), msgspec.structs.replace(CHURN, version="4"))
    instances = [{"age": 41.10000000000001, "name": "Zoë"}]
    original = make_message("a", instances, version="3", method="predict", metadata={"x": "1"})
    store_letter(server, make_letter("a"), original)
    client.dead_letters.replay(ids=["a"], version="4")
    replayed = decode_parts(decode_queued_message(server.lindex(RETRIED, 0))[1])
    expected = decode_parts(original)
    body, body_before = (json.loads(base64.b64decode(parts.pop("body"))) for parts in (replayed, expected))
    assert body[1] == {"version": "4", "method": "predict", "metadata": {"x": "1"}}
    assert (body[0], body[2]) == (body_before[0], body_before[2])
    expected["headers"]["argsrepr"] = "churn@4, 1 instance"
    assert replayed == expected


def test_a_replay_to_an_unknown_version_changes_nothing(client: Client, server: redis.Redis):
    store_letter(server, make_letter("a"))
    for dry_run in (True, False):
        with pytest.raises(UnknownModel, match="has no version '9'; it has 3"):
            client.dead_letters.replay(ids=["a"], version="9", dry_run=dry_run)
    for version in ("latest", "", "3 "):
        with pytest.raises(InvalidInput, match="a number as text"):
            client.dead_letters.replay(ids=["a"], version=version)
    assert list_ids(client) == ["a"]


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


def test_a_submitter_that_waits_again_gets_the_new_outcome(client: Client, server: redis.Redis, redis_url: str):
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


def test_the_id_is_protected_again_after_a_replay(client: Client, server: redis.Redis):
    job = client.submit("churn", {"age": 41}, id="a")
    payload = server.rpop("predict.churn")
    server.delete(Keys().job("a"))  # expired, as a day after the failure
    store_letter(server, make_letter("a"), payload, with_outcome=False)
    client.dead_letters.replay(ids=["a"])
    assert client.submit("churn", {"age": 41}, id="a").id == job.id
    assert (server.llen(RETRIED), server.llen("predict.churn")) == (1, 0)
    with pytest.raises(JobConflict):
        client.submit("churn", {"age": 42}, id="a")
    assert server.ttl(Keys().job("a")) > 86_400


def test_a_replay_does_not_change_another_job_of_the_same_id(client: Client, server: redis.Redis, redis_url: str):
    store_letter(server, make_letter("a"), with_outcome=False)
    with AnsweringWorker(redis_url):
        client.submit("churn", {"age": 1}, id="a").result(timeout=20)
    assert client.dead_letters.replay(ids=["a"]) == BulkResult(id_in_use=1)
    assert client.job("a").result().prediction == 2
    store_letter(server, make_letter("b"), with_outcome=False)
    client.submit("churn", {"age": 1}, id="b")
    assert client.dead_letters.replay(ids=["b"]) == BulkResult(id_in_use=1)
    assert list_ids(client) == ["a", "b"]
    assert server.llen("predict.churn") == 1


def test_malformed_letters_are_left_in_place(client: Client, server: redis.Redis):
    name = store_malformed(server, b"\x00garbage")
    store_letter(server, make_letter("a"))
    assert client.dead_letters.replay(every=True, dry_run=True) == BulkResult(done=1, malformed=1)
    assert client.dead_letters.replay(every=True) == BulkResult(done=1, malformed=1)
    assert list_ids(client) == [name]


def test_a_message_with_wrong_arguments_can_be_replayed(client: Client, server: redis.Redis):
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
    assert server.llen(f"{RETRIED}\x06\x169") == 1
    assert server.llen(RETRIED) == 2


def test_a_letter_that_was_replaced_after_it_was_read_is_left_in_place(client: Client, server: redis.Redis):
    store_letter(server, make_letter("a"), died_ms=ago_ms(60))
    prepared = prepare_replay(
        client.dead_letters.show("a"), replayed_by="ann@desk", now_ms=ago_ms(0), version=None
    )
    store_letter(server, make_letter("a", message="newer"))
    assert execute(server, replay_command(Keys(), [prepared], record_ttl=60)) == [LetterResult.ALREADY_HANDLED]
    assert client.dead_letters.show("a").message == "newer"
    assert not server.exists(RETRIED)


def test_a_replay_that_fails_in_the_script_loses_nothing(client: Client, server: redis.Redis):
    store_letter(server, make_letter("a"))
    server.set(RETRIED, "a key of another type")
    with pytest.raises(BrokerUnavailable, match="WRONGTYPE"):
        client.dead_letters.replay(ids=["a"])
    assert list_ids(client) == ["a"]
    assert client.job("a").status() == "failure"


def store_second_letter(server: redis.Redis) -> None:
    """Store two letters of jobs with the id `a`: of the second, the worker's script made the id `a~2`."""
    store_letter(server, make_letter("a", error="KeyError"))
    second = make_letter("a~2", job="a", error="ValueError")
    store_letter(server, second, make_message("a", [{"age": 42}]), with_outcome=False)


def test_a_second_letter_of_an_id_is_listed_shown_and_purged_by_its_own_id(client: Client, server: redis.Redis):
    store_second_letter(server)
    assert [(letter.id, letter.job, letter.error) for letter in client.dead_letters.list()] == [
        ("a", "a", "KeyError"),
        ("a~2", "a", "ValueError"),
    ]
    assert client.dead_letters.show("a~2").payload == make_message("a", [{"age": 42}])
    assert client.dead_letters.purge(ids=["a"]) == BulkResult(done=1)
    assert list_ids(client) == ["a~2"]
    assert server.keys("headrace:dead:jobs:*") == [b"headrace:dead:jobs:predict.churn"]
    assert client.dead_letters.purge(ids=["a~2"]) == BulkResult(done=1)
    assert stored_ids(server) == NO_IDS
    assert server.keys("headrace:dead*") == []


def test_a_replay_of_a_second_letter_runs_its_job_under_the_id_of_the_job(client: Client, server: redis.Redis):
    store_second_letter(server)
    assert client.dead_letters.replay(ids=["a~2"]) == BulkResult(done=1)
    assert not server.exists(Keys().result("a"))
    assert client.job("a").status() == "waiting"
    # The first waits until the second has ended: its id has a job under way.
    assert client.dead_letters.replay(ids=["a"]) == BulkResult(id_in_use=1)
    assert list_ids(client) == ["a"]
