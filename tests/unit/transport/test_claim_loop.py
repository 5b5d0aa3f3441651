"""The claim loop without Redis and kombu: the commands it sends in each state, and its use of replies."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest
import redis

from headrace.wire.keys import Keys
from headrace_worker.transport.claim_states import State
from headrace_worker.transport.claims import ClaimLimits
from headrace_worker.transport.notifications import LOOK_SECONDS, QueueNotifications
from tests.support.claim_loop import (
    CLAIM,
    CLIENT_ID,
    NOTHING,
    PARKED,
    QUEUE,
    Harness,
    names_of,
    queues_of,
    sleeping,
)


@pytest.fixture
def harness() -> Harness:
    return Harness()


def test_a_claim_is_sent_once_and_its_reply_returns_the_jobs(harness: Harness) -> None:
    loop = harness.loop
    assert loop.state is State.IDLE
    assert names_of(loop.next_commands()) == CLAIM
    assert (loop.state, loop.pending_replies) == (State.SENT, 2)
    harness.clock.advance(0.5)
    claim = harness.answer([1, [1, 2, 4, 1], [b"a", b"b", b"c"], 1, 1_700_000_000_000, 0])
    assert loop.state is State.IDLE
    assert claim is not None
    assert (claim.lease.queue, claim.lease.origins) == (QUEUE, ((1, 2), (4, 1)))
    assert (claim.queued_messages, claim.check_outcomes) == ([b"a", b"b", b"c"], True)
    assert (claim.claimed_ms, claim.claimed_monotonic) == (1_700_000_000_000, harness.clock())


def test_jobs_whose_lease_was_ended_before_they_were_read_are_searched_for(harness: Harness) -> None:
    lease = harness.loop.next_commands()[-1][1]
    replies = [0] * (harness.loop.pending_replies - 2)
    assert harness.loop.receive([*replies, [1, [1, 2], [], 0, 1_700_000_000_000, 0], [b"a"]]) is None
    assert [Keys().lease(name) for name in harness.orphans] == [lease]


def test_the_loop_sleeps_after_two_empty_claims_and_wakes_when_a_list_changes(harness: Harness) -> None:
    loop = harness.loop
    harness.claim(NOTHING)
    assert harness.look() == ["CLIENT", "CLIENT", "PERSIST", "EXISTS"]
    assert loop.next_commands() == []
    assert not loop.keys_changed([])
    assert loop.next_commands() == []
    assert loop.keys_changed([{b"predict.churn"}])
    assert names_of(loop.next_commands()) == CLAIM


def test_a_poll_looks_whether_anything_waits_and_a_claim_follows_only_then() -> None:
    harness = sleeping("churn", "fraud")
    harness.loop.poll()
    assert harness.loop.next_commands() == [], "polled too soon"
    for _ in range(2):
        harness.clock.advance(LOOK_SECONDS)
        harness.loop.poll()
        assert harness.look(waiting=0) == ["PERSIST", "EXISTS"]
        assert harness.loop.next_commands() == []
    harness.clock.advance(LOOK_SECONDS)
    harness.loop.poll()
    harness.look(waiting=1)
    command, _ = harness.loop.next_commands()
    assert queues_of(command) == ["predict.churn", "predict.fraud"]
    harness.answer(NOTHING)
    assert harness.loop.next_commands() == [], (
        "what waits cannot be claimed now, and a claim does not repeat at once"
    )


def test_a_look_asks_for_every_list_of_the_queues_from_which_jobs_may_be_claimed() -> None:
    harness = sleeping("churn", "fraud", "paused")
    harness.limits[2] = ClaimLimits(queue="predict.paused", claims=0)
    harness.clock.advance(LOOK_SECONDS)
    harness.loop.poll()
    _, exists = harness.loop.next_commands()
    assert set(exists[1:]) == {*Keys().sources("predict.churn"), *Keys().sources("predict.fraud")}


def test_a_woken_loop_claims_only_from_the_queues_whose_lists_changed() -> None:
    harness = sleeping("churn", "fraud", "prices")
    assert harness.loop.keys_changed(
        [{b"headrace:retried:predict.prices\x06\x169"}, {b"predict.churn", b"another"}]
    )
    command, _ = harness.loop.next_commands()
    assert queues_of(command) == ["predict.churn", "predict.prices"]
    assert harness.answer([2, [1, 1], [b"job"], 0, 0, 0])
    assert harness.look() == ["PERSIST", "EXISTS"]
    assert harness.loop.next_commands() == []


def test_a_change_of_no_list_of_a_queue_and_a_piece_without_keys_lead_to_a_look() -> None:
    for keys in (set(), {b"predict.churn:1"}):
        harness = sleeping("churn", "fraud")
        assert harness.loop.keys_changed([keys])
        assert harness.look() == ["PERSIST", "EXISTS"]


def test_a_change_while_a_claim_is_pending_is_claimed_afterwards() -> None:
    harness = sleeping("churn", "fraud")
    harness.loop.keys_changed([{b"predict.churn"}])
    harness.loop.next_commands()
    harness.loop.keys_changed([{b"predict.fraud"}])
    harness.answer(NOTHING)
    command, _ = harness.loop.next_commands()
    assert queues_of(command) == ["predict.fraud"]


@pytest.mark.parametrize("jobs", [2, 8])
def test_a_claim_of_several_jobs_is_followed_by_a_claim_of_all_queues(jobs: int) -> None:
    harness = sleeping("churn", "fraud")
    harness.loop.keys_changed([{b"predict.churn"}])
    harness.claim([1, [1, jobs], [b"job"] * jobs, 0, 0, 0])
    command, _ = harness.loop.next_commands()
    assert queues_of(command) == ["predict.churn", "predict.fraud"]


def test_a_look_that_redis_refuses_is_followed_by_a_claim() -> None:
    harness = sleeping("churn")
    harness.clock.advance(LOOK_SECONDS)
    harness.loop.poll()
    harness.loop.next_commands()
    harness.answer(redis.exceptions.NoPermissionError("no EXISTS"))
    assert names_of(harness.loop.next_commands()) == CLAIM


def test_a_look_notices_that_its_server_is_no_primary() -> None:
    harness = sleeping("churn")
    harness.clock.advance(LOOK_SECONDS)
    harness.loop.poll()
    harness.loop.next_commands()
    with pytest.raises(redis.ConnectionError):
        harness.loop.receive([redis.ReadOnlyError("READONLY You can't write against a read only replica."), 0])


def test_a_claim_of_other_queues_has_the_queue_of_the_parked_lease_with_it() -> None:
    harness = sleeping("churn", "fraud")
    harness.loop.keys_changed([{b"predict.churn"}])
    harness.claim([1, [1, 1], [b"job"], 0, 0, 0])
    harness.look(waiting=1)
    harness.claim([1, [1, 1], [b"job"], 0, 0, 0])
    assert names_of(harness.loop.next_commands()) == ["PERSIST", "EXISTS", *CLAIM]
    harness.answer(PARKED)
    assert names_of(harness.loop.next_commands())[0] == "BLMOVE"
    assert harness.loop.keys_changed([{b"predict.fraud"}])
    harness.loop.receive([None, b"1", 0, 0, (1, 0)])
    command, _ = harness.loop.next_commands()
    assert queues_of(command) == ["predict.churn", "predict.fraud"]
    assert command[3 + int(command[2]) + 5] == harness.loop.blocking.lease.member


def test_a_wait_in_vain_goes_on_until_it_is_time_to_look() -> None:
    harness = Harness()
    harness.park()
    for seconds in (1.0, LOOK_SECONDS):
        assert names_of(harness.loop.next_commands())[0] == "BLMOVE"
        harness.clock.advance(seconds)
        assert harness.loop.receive([None, b"1", 0, 0, (1, 0)]) is None
    harness.look()
    assert names_of(harness.loop.next_commands())[0] == "BLMOVE", "the lease is parked for longer"


def test_an_idle_loop_waits_at_the_list_of_its_last_jobs(harness: Harness) -> None:
    loop = harness.loop
    harness.park()
    commands = loop.next_commands()
    assert names_of(commands) == ["BLMOVE", "ZSCORE", "LLEN", "EXISTS", "TIME"]
    assert commands[0][1] == QUEUE
    assert (loop.state, loop.blocking_queue, loop.sent_client_id) == (State.BLOCKING, QUEUE, CLIENT_ID)
    claim = loop.receive([b"job", b"1", 0, 0, (1, 0)])
    assert claim is not None
    assert claim.lease.blocking
    assert loop.state is State.IDLE
    assert names_of(loop.next_commands()) == ["PERSIST", "EXISTS", *CLAIM]  # awake: a look, and a lease parked


def test_a_wait_without_a_job_is_followed_by_a_claim_that_parks_the_same_lease(harness: Harness) -> None:
    harness.park()
    (_, _, lease_key, *_), *_ = harness.loop.next_commands()
    harness.clock.advance(6)  # more than half a lease: it is parked again
    assert harness.loop.receive([None, b"1", 0, 0, (1, 0)]) is None
    *_, claim, _ = harness.loop.next_commands()
    assert lease_key in claim
    harness.answer(PARKED)
    assert harness.loop.next_commands()[0][2] == lease_key


def test_during_a_wait_only_changes_of_other_lists_wake_the_loop_and_the_poll_does_not(harness: Harness) -> None:
    harness.park()
    harness.loop.next_commands()
    assert not harness.loop.keys_changed([{b"predict.churn"}])
    assert harness.loop.keys_changed([{b"predict.churn", b"headrace:isolated:predict.churn"}])
    assert harness.loop.keys_changed([set()])  # a message that was cut in two
    assert harness.loop.state is State.BLOCKING
    harness.loop.poll()
    assert harness.loop.state is State.BLOCKING


def test_a_lost_connection_orphans_the_pending_claim_and_the_parked_lease(harness: Harness) -> None:
    loop = harness.loop
    assert loop.connection_lost() == {}
    loop.next_commands()
    assert loop.connection_lost() == {"host/1/x/1": 0}
    assert loop.state is State.IDLE
    harness.park()
    loop.next_commands()
    lease = loop.blocking.lease
    assert lease is not None
    assert loop.connection_lost() == {lease.name: CLIENT_ID}
    harness.connect()
    harness.park()
    loop.wake()
    loop.next_commands()
    lease = loop.blocking.lease
    assert lease is not None
    orphans = loop.connection_lost()
    assert len(orphans) == 2
    assert orphans[lease.name] == CLIENT_ID


def test_a_redis_without_the_function_gets_the_script_and_its_source_once(harness: Harness) -> None:
    assert harness.claim(redis.ResponseError("Function not found")) is None
    assert names_of(harness.loop.next_commands())[0] == "EVALSHA"
    assert harness.answer(redis.exceptions.NoScriptError("NOSCRIPT")) is None
    assert names_of(harness.loop.next_commands())[0] == "EVAL"
    harness.answer(NOTHING)
    harness.loop.wake()
    assert names_of(harness.loop.next_commands())[-2] == "EVALSHA"


def test_a_claim_without_function_and_permission_for_the_script_names_the_remedy_and_tries_the_function_again(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    denied = redis.exceptions.NoPermissionError("User worker has no permissions to run the 'evalsha' command")
    assert harness.claim(redis.ResponseError("Function not found")) is None
    assert harness.claim(denied) is None
    assert "headrace redis install" in caplog.text
    assert harness.loop.next_commands() == []
    harness.loop.poll()
    assert names_of(harness.loop.next_commands()) == CLAIM


def test_a_refused_claim_is_logged_once_and_sent_again_at_the_next_poll(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        assert harness.claim(redis.ResponseError("OOM command not allowed")) is None
        assert harness.loop.next_commands() == []
        harness.loop.poll()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "OOM command not allowed" in caplog.text


def test_a_server_that_is_no_primary_ends_the_connection(harness: Harness) -> None:
    with pytest.raises(redis.ConnectionError):
        harness.claim(redis.ReadOnlyError("READONLY You can't write against a read only replica."))
    assert harness.loop.state is State.IDLE
    assert harness.loop.connection_lost() == {}


def test_each_tenth_claim_starts_with_the_lowest_priority(harness: Harness) -> None:
    starts_lowest = []
    for _ in range(20):
        command = harness.loop.next_commands()[-2]
        keys = int(command[2])
        starts_lowest.append(command[3 + keys + 2])
        harness.answer([1, [1, 1], [b"job"], 0, 0, 0])
    assert starts_lowest == [0] * 9 + [1] + [0] * 9 + [1]


def test_a_queue_with_as_many_claims_as_it_may_have_is_skipped_until_a_claim_ends(harness: Harness) -> None:
    harness.limits = [ClaimLimits(queue=QUEUE, claims=1)]
    harness.claim_job()
    assert not harness.loop.has_skipped_jobs
    harness.held[QUEUE] = 1
    assert harness.loop.next_commands() == []
    assert harness.loop.has_skipped_jobs
    harness.held[QUEUE] = 0
    assert harness.loop.next_commands()


def test_a_model_that_is_not_served_is_not_waited_for(harness: Harness) -> None:
    harness.limits = [ClaimLimits(queue=QUEUE, claims=0)]
    assert harness.loop.next_commands() == []
    assert not harness.loop.has_skipped_jobs


def test_a_lease_that_is_parked_at_a_queue_of_which_nothing_is_claimed_any_more_is_given_up(
    harness: Harness,
) -> None:
    harness.park()
    lease = harness.loop.blocking.lease
    assert lease is not None
    harness.limits = [ClaimLimits(queue=QUEUE, claims=0), ClaimLimits(queue="predict.other")]
    harness.loop.wake()
    assert harness.loop.next_commands()
    assert harness.orphans == [lease.name]
    harness.answer(NOTHING)
    harness.loop.wake()
    assert harness.loop.next_commands()
    assert harness.orphans == [lease.name]


def test_a_queue_fills_for_as_long_as_its_limits_say(harness: Harness) -> None:
    harness.limits = [ClaimLimits(queue=QUEUE, jobs=8, wait=0.5)]
    full_only = 3  # the fourth of the arguments of a queue

    def sent() -> Any:
        command = harness.loop.next_commands()[-2]
        keys = int(command[2])
        return command[3 + keys + 8 + full_only]

    assert sent() == 1
    harness.answer([0, [1], 0])  # jobs wait, fewer than 8
    assert harness.wakes_after == [0.5]
    harness.loop.wake()
    harness.clock.advance(0.4)
    assert sent() == 1
    harness.answer([0, [1], 0])
    assert harness.wakes_after == [0.5]  # counted from the first job
    harness.loop.wake()
    harness.clock.advance(0.1)
    assert sent() == 0
    harness.answer([1, [1, 2], [b"a", b"b"], 0, 0, 0])
    assert sent() == 1  # the next batch fills for as long


def test_no_lease_is_parked_where_redis_cannot_end_a_wait(harness: Harness) -> None:
    harness.loop.connected(QueueNotifications(0, 8))
    harness.loop.watch([QUEUE])
    harness.claim_job()
    harness.claim_job()
    harness.claim(NOTHING)
    harness.look()


def test_limits_are_passed_on_unchanged_but_for_filling(harness: Harness) -> None:
    limits = ClaimLimits(queue=QUEUE, jobs=5, bytes=1000, leased=False)
    harness.limits = [limits, msgspec.structs.replace(limits, queue="predict.fraud", leased=True)]
    command = harness.loop.next_commands()[-2]
    keys = int(command[2])
    assert list(command[3 + keys + 8 :]) == [QUEUE, 5, 1000, 0, 0, "predict.fraud", 5, 1000, 0, 1]


def isolated_turns(harness: Harness, *claimed_sources: int) -> list[str]:
    """Claim one job from each of these sources. Return when each claim takes an isolated job."""
    turns = []
    for source in claimed_sources:
        command = harness.loop.next_commands()[-2]
        turns.append(command[3 + int(command[2]) + 3])
        harness.answer([1, [source, 1], [b"job"], 0, 0, 0])
    return turns


def test_a_single_process_runs_isolated_jobs_and_others_in_turn(harness: Harness) -> None:
    harness.processes = 1
    assert isolated_turns(harness, 0, 1, 0, 0, 5) == ["first", "last", "first", "last", "last"]


@pytest.mark.parametrize(
    ("processes", "isolated", "turn"),
    [(2, 0, "first"), (2, 1, "never"), (3, 1, "never"), (8, 3, "first"), (8, 4, "never"), (0, 99, "first")],
)
def test_isolated_jobs_hold_at_most_half_of_the_processes(
    harness: Harness, processes: int, isolated: int, turn: str
) -> None:
    harness.processes, harness.isolated = processes, isolated
    assert isolated_turns(harness, 0) == [turn]
    assert harness.loop.has_skipped_jobs == (turn == "never")


def test_retried_jobs_go_first_in_every_second_claim_of_either_order(harness: Harness) -> None:
    orders = []
    for _ in range(20):
        command = harness.loop.next_commands()[-2]
        lowest_first, _, retried_first = command[3 + int(command[2]) + 2 :][:3]
        orders.append((lowest_first, retried_first))
        harness.answer([1, [1, 1], [b"job"], 0, 0, 0])
    assert Counter(orders) == {(0, 0): 9, (0, 1): 9, (1, 0): 1, (1, 1): 1}
