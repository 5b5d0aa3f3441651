"""The watch: one idle worker listens, the others sleep until a token names a queue."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from headrace.wire.keys import Keys
from headrace_worker.transport.claim_states import State
from headrace_worker.transport.claims import ClaimLimits
from headrace_worker.transport.notifications import LOOK_SECONDS, QueueNotifications
from tests.support.claim_loop import CLAIM, NOTHING, PARKED, Harness, names_of, queues_of

MODELS = ("churn", "fraud", "prices")
QUEUES = [f"predict.{model}" for model in MODELS]
KEYS = Keys()
WON, LOST = b"OK", None


def idle(workers: int = 2) -> Harness:
    """Return a harness of a worker among some that has found nothing, and looks next."""
    harness = Harness(shared=True)
    harness.workers = workers
    harness.limits = [ClaimLimits(queue=queue, jobs=8, bytes=999) for queue in QUEUES]
    harness.loop.watch(QUEUES)
    harness.claim(NOTHING)
    return harness


def answer_look(harness: Harness, reply: Any, waiting: int = 0) -> list[str]:
    """Send a look and answer it. Returns the names of its commands."""
    names = names_of(harness.loop.next_commands())
    assert harness.loop.receive([b"OK"] * (len(names) - 2) + [reply, waiting]) is None
    return names


def watching(workers: int = 2) -> Harness:
    """Return the harness of a worker that watches and sleeps."""
    harness = idle(workers)
    assert answer_look(harness, WON) == ["SET", "EXISTS"]
    assert harness.watch.is_held
    assert answer_look(harness, 0) == ["CLIENT", "CLIENT", "PERSIST", "EXISTS"]
    assert harness.loop.next_commands() == []
    return harness


def sleeping_worker(workers: int = 2) -> tuple[Harness, list[Any]]:
    """Return the harness of a worker that another one wakes, and the command with which it waits."""
    harness = idle(workers)
    assert answer_look(harness, LOST) == ["SET", "EXISTS"]
    (command,) = harness.loop.next_commands()
    assert harness.loop.state is State.WAITING
    return harness, list(command)


def test_the_worker_that_takes_the_watch_is_told_of_every_list_of_its_queues() -> None:
    harness = watching()
    assert harness.loop.keys_changed([{b"predict.fraud"}])
    command, _ = harness.loop.next_commands()
    assert queues_of(command) == ["predict.fraud"]
    assert harness.answer([1, [1, 1], [b"job"], 0, 0, 0])
    assert answer_look(harness, 0) == ["PERSIST", "EXISTS"], "it keeps the watch, and is told of lists already"
    assert harness.loop.next_commands() == []


def test_another_worker_sleeps_at_the_tokens_and_claims_from_the_queue_of_the_token_that_it_gets() -> None:
    harness, command = sleeping_worker()
    assert command[0] == "BLPOP"
    assert command[2:-1] == [KEYS.tokens(queue) for queue in QUEUES]
    assert harness.loop.receive([[KEYS.tokens("predict.prices").encode(), b"1"]]) is None
    command, _ = harness.loop.next_commands()
    assert queues_of(command) == ["predict.prices"]
    assert harness.answer([1, [1, 1], [b"job"], 0, 0, 0])
    assert answer_look(harness, LOST) == ["SET", "EXISTS"]
    assert names_of(harness.loop.next_commands()) == ["BLPOP"]


def test_a_token_of_a_queue_that_is_empty_costs_one_claim() -> None:
    harness, _ = sleeping_worker()
    harness.loop.receive([[KEYS.tokens("predict.prices").encode(), b"1"]])
    harness.claim(NOTHING)
    assert names_of(harness.loop.next_commands()) == ["BLPOP"]


def test_a_worker_that_sleeps_looks_by_itself_the_more_rarely_the_more_workers_there_are() -> None:
    seconds = []
    for workers in (2, 8, 100):
        harness, command = sleeping_worker(workers)
        seconds.append(float(command[-1]))
        assert harness.loop.wait_seconds == pytest.approx(seconds[-1], abs=0.01)
        harness.loop.poll()
        assert harness.loop.state is State.WAITING
        harness.loop.receive([None])
        assert answer_look(harness, LOST) == ["SET", "EXISTS"]
    assert 0.75 <= seconds[0] <= 1.25
    assert 3 <= seconds[1] <= 5
    assert 3.75 <= seconds[2] <= 6.25


def test_a_worker_that_sleeps_takes_a_watch_that_became_free() -> None:
    harness, command = sleeping_worker()
    harness.loop.receive([[command[1].encode(), b"1"]])
    assert answer_look(harness, WON) == ["SET", "EXISTS"]
    assert answer_look(harness, 0) == ["CLIENT", "CLIENT", "PERSIST", "EXISTS"]
    assert harness.loop.next_commands() == []


def test_a_worker_that_takes_the_watch_while_jobs_wait_listens_before_it_runs_one() -> None:
    harness = idle()
    answer_look(harness, WON, waiting=1)
    assert names_of(harness.loop.next_commands()) == ["CLIENT", "CLIENT", *CLAIM]


def test_a_worker_that_lost_the_watch_stops_to_listen_and_sleeps() -> None:
    harness = watching()
    harness.watch.is_held = False  # the lease keeper has seen another name
    harness.clock.advance(LOOK_SECONDS)
    harness.loop.poll()
    assert answer_look(harness, LOST) == ["CLIENT", "SET", "EXISTS"]
    assert names_of(harness.loop.next_commands()) == ["BLPOP"]


def test_a_worker_that_lost_the_watch_gives_its_parked_lease_up() -> None:
    harness = watching()
    for _ in range(2):
        harness.loop.keys_changed([{b"predict.churn"}])
        harness.claim([1, [1, 1], [b"job"], 0, 0, 0])
    assert names_of(harness.loop.next_commands()) == ["PERSIST", "EXISTS", *CLAIM]
    harness.answer(PARKED)
    lease = harness.loop.blocking.lease
    assert lease is not None
    harness.watch.is_held = False
    harness.clock.advance(LOOK_SECONDS)
    harness.loop.poll()
    answer_look(harness, LOST)
    assert harness.orphans == [lease.name]


def test_a_worker_that_is_never_idle_gives_the_watch_up_and_wakes_one_that_takes_it() -> None:
    harness = watching()
    harness.loop.wake()
    for _ in range(32):
        assert harness.watch.is_held
        harness.claim([1, [1, 8], [b"job"] * 8, 0, 0, 0])
    commands = harness.loop.next_commands()
    assert names_of(commands) == ["PEXPIRE", "LPUSH", "LTRIM", "EXPIRE", "CLIENT", *CLAIM]
    assert commands[1][1] == harness.watch.free_key
    assert not harness.watch.is_held
    full = redis.exceptions.OutOfMemoryError("OOM command not allowed")
    assert harness.loop.receive([1, full, full, 0, b"OK", [1, [1, 8], [], 0, 0, 0], [b"job"] * 8])
    assert harness.watch.is_shared, "a full Redis lets it listen again"


def test_a_worker_on_its_own_tells_nobody_that_the_watch_is_free() -> None:
    harness = watching(workers=1)
    harness.loop.wake()
    for _ in range(32):
        harness.claim([1, [1, 8], [b"job"] * 8, 0, 0, 0])
    assert names_of(harness.loop.next_commands()) == ["PEXPIRE", "CLIENT", *CLAIM]


def unclaimed(harness: Harness, *, can_claim: bool) -> set[str]:
    """Return the queues for which others are woken now."""
    harness.loop.mark_unclaimed()
    return harness.loop.take_marked(can_claim=can_claim)


def test_a_busy_watcher_names_the_queues_that_others_are_to_claim_from() -> None:
    harness = watching()
    harness.loop.keys_changed([{b"predict.fraud"}, {b"predict.prices"}])
    assert unclaimed(harness, can_claim=True) == set()
    assert unclaimed(harness, can_claim=False) == {"predict.fraud", "predict.prices"}
    assert unclaimed(harness, can_claim=False) == set(), "once"
    harness.loop.keys_changed([{b"predict.fraud", b"predict.churn"}])
    harness.claim([1, [1, 1], [b"job"], 0, 0, 0])
    assert unclaimed(harness, can_claim=False) == {"predict.fraud"}, "the script names the other one"


def test_a_watcher_wakes_nobody_for_a_queue_from_which_it_claims_a_moment_later() -> None:
    harness = watching()
    harness.loop.keys_changed([{b"predict.churn"}])
    assert harness.loop.mark_unclaimed()
    harness.claim([1, [1, 1], [b"job"], 0, 0, 0])
    harness.loop.keys_changed([{b"predict.churn"}, {b"predict.fraud"}])
    assert harness.loop.take_marked(can_claim=False) == set(), "these jobs came after the claim"
    assert unclaimed(harness, can_claim=False) == {"predict.churn", "predict.fraud"}
    assert not harness.loop.mark_unclaimed()


def test_a_watcher_names_queues_that_it_may_not_claim_from() -> None:
    harness = watching()
    harness.limits[0] = ClaimLimits(queue="predict.churn", claims=1)
    harness.held["predict.churn"] = 1
    harness.loop.keys_changed([{b"predict.churn", b"predict.fraud"}])
    assert unclaimed(harness, can_claim=True) == {"predict.churn"}
    command, _ = harness.loop.next_commands()
    assert queues_of(command) == ["predict.fraud"]


def test_a_watcher_names_queues_of_isolated_jobs_that_it_may_not_run() -> None:
    harness = watching()
    harness.processes, harness.isolated = 2, 1
    harness.loop.keys_changed([{b"headrace:isolated:predict.churn"}])
    harness.claim(NOTHING)
    assert unclaimed(harness, can_claim=True) == {"predict.churn"}


def test_a_look_that_finds_jobs_is_followed_by_claims_of_the_changed_queues_and_of_all_if_those_find_nothing() -> (
    None
):
    harness = watching()
    harness.loop.poll()
    harness.clock.advance(LOOK_SECONDS)
    harness.loop.poll()
    names = names_of(harness.loop.next_commands())
    assert names == ["PERSIST", "EXISTS"]
    harness.loop.keys_changed([{b"predict.prices"}])
    assert harness.loop.receive([0, 1]) is None
    command, _ = harness.loop.next_commands()
    assert queues_of(command) == ["predict.prices"]
    assert harness.answer(NOTHING) is None
    command, _ = harness.loop.next_commands()
    assert sorted(queues_of(command)) == QUEUES
    assert harness.answer(NOTHING) is None
    assert harness.loop.next_commands() == [], "asleep"


@pytest.mark.parametrize("error", ["NOPERM no BLPOP", "ERR unknown command 'BLPOP'"])
def test_a_worker_whose_redis_refuses_to_let_it_wait_listens_for_itself(
    error: str, caplog: pytest.LogCaptureFixture
) -> None:
    harness, _ = sleeping_worker()
    harness.loop.receive([redis.ResponseError(error)])
    assert not harness.watch.is_shared
    assert answer_look(harness, 0) == ["PERSIST", "EXISTS"]
    assert answer_look(harness, 0) == ["CLIENT", "CLIENT", "PERSIST", "EXISTS"]
    assert harness.loop.next_commands() == []
    assert caplog.text.count("one idle worker at a time") == 1


def test_a_worker_whose_redis_is_full_listens_for_itself_for_a_while() -> None:
    harness = idle()
    answer_look(harness, redis.exceptions.OutOfMemoryError("OOM command not allowed"))
    assert answer_look(harness, 0)[:2] == ["CLIENT", "CLIENT"]
    assert harness.loop.next_commands() == []
    harness.clock.advance(61)
    harness.loop.poll()
    assert answer_look(harness, WON) == ["CLIENT", "SET", "EXISTS"]


def test_a_worker_that_may_not_listen_does_not_watch() -> None:
    harness = idle()
    answer_look(harness, WON)
    names = names_of(harness.loop.next_commands())
    assert harness.loop.receive([b"OK", redis.ResponseError("NOPERM"), 0, 0]) is None
    assert names == ["CLIENT", "CLIENT", "PERSIST", "EXISTS"]
    assert not harness.watch.is_held
    assert not harness.watch.is_shared


@pytest.mark.parametrize("error", ["READONLY", "UNBLOCKED force unblock from blocking operation"])
def test_a_wait_that_a_failover_ends_ends_the_connection(error: str) -> None:
    harness, _ = sleeping_worker()
    reply = redis.ReadOnlyError(error) if error == "READONLY" else redis.ResponseError(error)
    with pytest.raises(redis.ConnectionError):
        harness.loop.receive([reply])


def test_a_watcher_listens_again_at_once_on_a_new_connection() -> None:
    harness = watching()
    harness.loop.connected(QueueNotifications(9, 10))
    harness.loop.watch(QUEUES)
    assert names_of(harness.loop.next_commands()) == ["CLIENT", "CLIENT", *CLAIM]


def test_a_claim_wakes_others_only_where_there_are_others() -> None:
    for workers, keys in ((1, 4 + 9 * 3), (2, 4 + 10 * 3)):
        harness = Harness(shared=True)
        harness.workers, harness.limits = workers, [ClaimLimits(queue=queue) for queue in QUEUES]
        harness.loop.watch(QUEUES)
        assert int(harness.loop.next_commands()[-2][2]) == keys


def test_a_watcher_leaves_retried_jobs_to_each_other_worker_as_often_as_it_takes_them() -> None:
    left = 0
    for _ in range(400):
        harness = watching(workers=4)
        if not harness.loop.keys_changed([{KEYS.retried("predict.fraud")[0].encode()}]):
            left += 1
            assert harness.loop.next_commands() == []
            assert unclaimed(harness, can_claim=True) == {"predict.fraud"}
            assert harness.wakes_after == [0.1], "it claims them itself if no other worker is idle"
        else:
            assert queues_of(harness.loop.next_commands()[0]) == ["predict.fraud"]
    assert 240 < left < 360  # 300 of 400


def test_a_watcher_takes_retried_jobs_itself_if_it_is_alone_or_is_told_of_others_too() -> None:
    retried = KEYS.retried("predict.fraud")[0].encode()
    for _ in range(20):
        assert watching(workers=1).loop.keys_changed([{retried}])
        assert watching(workers=9).loop.keys_changed([{retried, b"predict.fraud"}])


def test_a_worker_that_sleeps_remembers_that_it_left_isolated_jobs() -> None:
    harness, _ = sleeping_worker()
    harness.loop.receive([[KEYS.tokens("predict.churn").encode(), b"1"]])
    harness.processes, harness.isolated = 2, 1
    harness.claim(NOTHING)
    assert names_of(harness.loop.next_commands()) == ["BLPOP"]
    assert harness.loop.has_skipped_jobs, "the end of an isolated job wakes it"
