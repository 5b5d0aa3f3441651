"""A listener's commands, pings, reconnects and its end: decided without I/O."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
import redis

from headrace.errors import BrokerUnavailable, HeadraceError
from headrace.results.listener_state import (
    LINGER_SECONDS,
    PING_SECONDS,
    Arrived,
    ListenerState,
    Step,
    Subscribed,
)
from headrace.results.reply_channel import REFETCH_SECONDS
from headrace.settings import Settings
from headrace.wire.keys import Keys
from headrace.wire.outcome import Cancelled, Outcome, encode_outcome

KEYS = Keys("p:")
SETTINGS = Settings(redis_url="redis://127.0.0.1:1", command_timeout=3)
CANCELLED = encode_outcome(Cancelled(job="a"), datetime(2030, 1, 1, tzinfo=UTC))


class RecordingWaiter:
    fetch_stored = True

    def __init__(self, *jobs: str, own: tuple[str, ...] = ()) -> None:
        self.jobs, self.own = set(jobs), set(own)
        self.outcomes: dict[str, Outcome] = {}
        self.error: HeadraceError | None = None

    def on_subscribed(self, job: str) -> None: ...

    def on_outcomes(self, outcomes: Mapping[str, Outcome]) -> None:
        self.jobs.difference_update(outcomes)
        self.outcomes.update(outcomes)

    def on_error(self, error: HeadraceError) -> None:
        self.error = error


def connected(*waiters: RecordingWaiter) -> ListenerState:
    state = ListenerState(KEYS, SETTINGS, "mine")
    state.on_connected(0)
    for waiter in waiters:
        state.subscriptions.add(waiter)
    return state


def test_a_job_is_subscribed_to_fetched_and_unsubscribed_from_by_the_name_of_its_result_key():
    waiter = RecordingWaiter("a")
    state = connected(waiter)
    assert state.next_subscribe() == ["SUBSCRIBE", "p:celery-task-meta-a"]
    assert state.next_subscribe() == []
    event = state.read_reply([b"subscribe", b"p:celery-task-meta-a", 1])
    assert event == Subscribed("a")
    state.handle(event)
    assert state.next_fetch() == ["p:celery-task-meta-a"]
    event = state.read_stored(["p:celery-task-meta-a"], [CANCELLED])
    assert event == Arrived({"a": Cancelled(job="a")})
    state.handle(event)
    assert waiter.outcomes == {"a": Cancelled(job="a")}
    assert state.next_unsubscribe() == ["UNSUBSCRIBE", "p:celery-task-meta-a"]
    assert state.next_unsubscribe() == []


def test_a_message_on_the_channel_of_a_job_holds_its_outcome():
    state = connected()
    message = [b"message", b"p:celery-task-meta-a", CANCELLED]
    assert state.read_reply(message) == Arrived({"a": Cancelled(job="a")})


def test_a_message_on_the_reply_channel_holds_outcomes_of_own_jobs():
    waiter = RecordingWaiter("a", own=("a",))
    state = connected(waiter)
    channel = KEYS.reply_channel("mine")
    assert state.next_subscribe() == ["SUBSCRIBE", channel]
    event = state.read_reply([b"subscribe", channel.encode(), 1])
    assert event == Subscribed(None)
    state.handle(event)
    state.handle(state.read_reply([b"message", channel.encode(), CANCELLED]))
    assert waiter.outcomes == {"a": Cancelled(job="a")}


@pytest.mark.parametrize("reply", [[b"pong", b""], [b"unsubscribe", b"p:celery-task-meta-a", 0], b"PONG"])
def test_a_reply_that_says_nothing_of_a_job_changes_nothing(reply: object):
    state = connected()
    assert state.read_reply(reply) is None
    state.handle(None)


def test_a_silent_connection_gets_a_ping_and_is_lost_if_it_does_not_answer():
    state = connected(RecordingWaiter("a"))
    assert state.next_step(PING_SECONDS, received=False) is Step.CONTINUE
    assert state.next_step(PING_SECONDS + 1, received=False) is Step.PING
    assert state.next_step(PING_SECONDS + 2, received=False) is Step.CONTINUE
    with pytest.raises(redis.TimeoutError, match="no answer to a PING"):
        state.next_step(PING_SECONDS + 4, received=False)


def test_an_answered_ping_keeps_the_connection():
    state = connected(RecordingWaiter("a"))
    assert state.next_step(PING_SECONDS + 1, received=False) is Step.PING
    assert state.next_step(PING_SECONDS + 2, received=True) is Step.CONTINUE
    assert state.next_step(2 * PING_SECONDS + 3, received=False) is Step.PING


def test_a_listener_without_waiters_stops_after_a_while():
    waiter = RecordingWaiter("a")
    state = connected(waiter)
    assert state.next_step(1, received=True) is Step.CONTINUE
    state.subscriptions.remove(waiter)
    state.next_subscribe()
    state.handle(Subscribed("a"))
    state.next_unsubscribe()
    assert state.next_step(1 + LINGER_SECONDS, received=True) is Step.CONTINUE
    assert state.next_step(2 + LINGER_SECONDS, received=True) is Step.STOP


def test_remaining_jobs_on_the_reply_channel_are_fetched_every_few_seconds():
    state = connected(RecordingWaiter("a", own=("a",)))
    state.next_subscribe()
    state.handle(Subscribed(None))
    assert state.next_fetch() == ["p:celery-task-meta-a"]
    state.next_step(REFETCH_SECONDS, received=True)
    assert state.next_fetch() == []
    state.next_step(REFETCH_SECONDS + 0.1, received=True)
    assert state.next_fetch() == ["p:celery-task-meta-a"]


def test_the_pause_before_a_reconnect_grows_up_to_a_second_and_starts_over_with_a_connection():
    waiter = RecordingWaiter("a")
    state = connected(waiter)
    pauses = [state.on_connection_lost(OSError("broken pipe")) for _ in range(8)]
    assert 0.025 <= pauses[0] <= 0.05
    assert 0.5 <= pauses[-1] <= 1
    assert isinstance(state.error, BrokerUnavailable)
    assert waiter.error is None
    state.on_connected(100)
    assert state.error is None
    assert state.on_connection_lost(redis.ConnectionError("reset")) <= 0.05


def test_a_refusal_ends_all_waits():
    waiter = RecordingWaiter("a")
    state = connected(waiter)
    state.on_connection_lost(redis.AuthenticationError("WRONGPASS"))
    assert waiter.error is state.error is not None
    assert not state.subscriptions
