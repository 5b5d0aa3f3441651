"""The channels a listener subscribes to, and who receives which outcome: decided without I/O."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.errors import BrokerUnavailable, HeadraceError
from headrace.results.subscriptions import JOBS_PER_COMMAND, Subscriptions
from headrace.wire.outcome import Cancelled, Outcome


class RecordingWaiter:
    def __init__(self, *jobs: str, fetch_stored: bool = True, own: tuple[str, ...] = ()) -> None:
        self.jobs = set(jobs)
        self.own = set(own)
        self.fetch_stored = fetch_stored
        self.events: list[object] = []

    def on_subscribed(self, job: str) -> None:
        self.events.append(("subscribed", job))

    def on_outcomes(self, outcomes: Mapping[str, Outcome]) -> None:
        self.jobs.difference_update(outcomes)
        self.events.extend(outcomes.values())

    def on_error(self, error: HeadraceError) -> None:
        self.events.append(error)


def subscribed(*waiters: RecordingWaiter) -> Subscriptions:
    """Subscriptions of these waiters, all confirmed."""
    subscriptions = Subscriptions()
    for waiter in waiters:
        subscriptions.add(waiter)
    while jobs := subscriptions.next_subscribe():
        for job in jobs:
            subscriptions.on_subscribed(job)
    return subscriptions


def test_a_stored_outcome_is_fetched_once_the_subscription_is_confirmed_and_not_before():
    subscriptions = Subscriptions()
    subscriptions.add(RecordingWaiter("a"))
    assert subscriptions.next_subscribe() == ["a"]
    assert subscriptions.next_fetch() == []
    subscriptions.on_subscribed("a")
    assert subscriptions.next_fetch() == ["a"]
    assert subscriptions.next_fetch() == []


def test_no_outcome_is_fetched_for_a_job_that_is_not_submitted_yet():
    subscriptions = subscribed(RecordingWaiter("a", fetch_stored=False))
    assert subscriptions.next_fetch() == []


def test_an_outcome_reaches_every_waiter_of_its_job_once():
    first, second, other = RecordingWaiter("a"), RecordingWaiter("a"), RecordingWaiter("b")
    subscriptions = subscribed(first, second, other)
    for _ in range(2):
        subscriptions.on_outcomes({"a": Cancelled(job="a")})
    for waiter in (first, second):
        assert waiter.events.count(Cancelled(job="a")) == 1
    assert Cancelled(job="a") not in other.events


def test_a_job_without_waiters_is_unsubscribed_from_and_forgotten():
    subscriptions = subscribed(RecordingWaiter("a"))
    subscriptions.on_outcomes({"a": Cancelled(job="a")})
    assert subscriptions.next_unsubscribe() == ["a"]
    assert len(subscriptions) == 0


def test_a_removed_waiter_leaves_no_subscription():
    removed, other = RecordingWaiter("a", "b"), RecordingWaiter("b")
    subscriptions = subscribed(removed, other)
    subscriptions.remove(removed)
    assert subscriptions.next_unsubscribe() == ["a"]
    subscriptions.remove(other)
    assert subscriptions.next_unsubscribe() == ["b"]
    assert len(subscriptions) == 0


def test_a_waiter_removed_before_the_confirmation_leaves_no_subscription():
    waiter = RecordingWaiter("a")
    subscriptions = Subscriptions()
    subscriptions.add(waiter)
    subscriptions.next_subscribe()
    subscriptions.remove(waiter)
    assert subscriptions.next_unsubscribe() == [], "the confirmation is still to come"
    subscriptions.on_subscribed("a")
    assert subscriptions.next_fetch() == []
    assert subscriptions.next_unsubscribe() == ["a"]
    assert len(subscriptions) == 0


def test_a_job_with_a_new_waiter_is_not_unsubscribed_from():
    first, second = RecordingWaiter("a"), RecordingWaiter("a")
    subscriptions = subscribed(first)
    subscriptions.remove(first)
    subscriptions.add(second)
    assert subscriptions.next_unsubscribe() == []
    assert subscriptions.next_subscribe() == ["a"]
    subscriptions.on_subscribed("a")
    assert subscriptions.next_fetch() == ["a"]


def test_no_further_subscribe_is_sent_while_many_confirmations_are_outstanding():
    subscriptions = Subscriptions()
    subscriptions.add(RecordingWaiter(*(f"job{number}" for number in range(3 * JOBS_PER_COMMAND))))
    jobs = subscriptions.next_subscribe()
    assert len(jobs) == JOBS_PER_COMMAND
    assert subscriptions.next_subscribe() == []
    subscriptions.on_subscribed(jobs[0])
    assert len(subscriptions.next_subscribe()) == JOBS_PER_COMMAND


def test_on_a_new_connection_all_jobs_are_subscribed_to_and_fetched():
    new, old, removed = RecordingWaiter("a", fetch_stored=False), RecordingWaiter("b"), RecordingWaiter("c")
    subscriptions = subscribed(new, old, removed)
    subscriptions.next_fetch()
    subscriptions.remove(removed)
    subscriptions.start_over()
    assert sorted(subscriptions.next_subscribe()) == ["a", "b"]
    for job in ("a", "b"):
        subscriptions.on_subscribed(job)
    assert sorted(subscriptions.next_fetch()) == ["a", "b"]


def test_an_error_reaches_every_waiter_once():
    first, second = RecordingWaiter("a", "b"), RecordingWaiter("b")
    subscriptions = subscribed(first, second)
    error = BrokerUnavailable("refused")
    subscriptions.fail(error)
    assert first.events.count(error) == second.events.count(error) == 1
    assert len(subscriptions) == 0


def test_events_of_jobs_without_a_waiter_are_ignored():
    subscriptions = Subscriptions()
    subscriptions.on_subscribed("a")
    subscriptions.on_outcomes({"a": Cancelled(job="a")})
    subscriptions.remove(RecordingWaiter("a"))
    assert len(subscriptions) == 0


def subscribed_to_reply_channel(*waiters: RecordingWaiter) -> Subscriptions:
    subscriptions = subscribed(*waiters)
    assert subscriptions.reply_channel.start_subscribing()
    subscriptions.reply_channel.on_subscribed()
    return subscriptions


def test_jobs_on_the_reply_channel_need_one_subscription_together():
    subscriptions = Subscriptions()
    subscriptions.add(RecordingWaiter("a", "b", "c", own=("a", "b")))
    assert subscriptions.next_subscribe() == ["c"]
    assert subscriptions.reply_channel.start_subscribing()
    assert not subscriptions.reply_channel.start_subscribing(), "once"


def test_outcomes_on_the_reply_channel_are_fetched_once_it_is_subscribed_to_and_not_before():
    waiter = RecordingWaiter("a", "b", own=("a", "b"))
    subscriptions = Subscriptions()
    subscriptions.add(waiter)
    assert subscriptions.next_fetch() == []
    subscriptions.reply_channel.start_subscribing()
    subscriptions.reply_channel.on_subscribed()
    assert sorted(subscriptions.next_fetch()) == ["a", "b"]
    assert sorted(waiter.events) == [("subscribed", "a"), ("subscribed", "b")]
    assert subscriptions.next_fetch() == []


def test_the_outcomes_of_a_later_wait_are_fetched_too():
    subscriptions = subscribed_to_reply_channel(RecordingWaiter("a", own=("a",)))
    subscriptions.next_fetch()
    subscriptions.add(RecordingWaiter("b", own=("b",)))
    assert subscriptions.next_fetch() == ["b"]


def test_the_remaining_jobs_on_the_reply_channel_are_fetched_again():
    waiter = RecordingWaiter("a", "b", own=("a", "b"))
    subscriptions = subscribed_to_reply_channel(waiter)
    subscriptions.next_fetch()
    subscriptions.on_outcomes({"a": Cancelled(job="a")})
    subscriptions.reply_channel.refetch()
    assert subscriptions.next_fetch() == ["b"]
    assert waiter.jobs == {"b"}


def test_the_reply_channel_is_subscribed_to_on_a_new_connection():
    subscriptions = subscribed_to_reply_channel(RecordingWaiter("a", own=("a",)))
    subscriptions.next_fetch()
    subscriptions.start_over()
    assert subscriptions.reply_channel.start_subscribing()
    assert subscriptions.next_fetch() == []
    subscriptions.reply_channel.on_subscribed()
    assert subscriptions.next_fetch() == ["a"]


def test_a_removed_waiter_leaves_no_job_on_the_reply_channel():
    waiter, other = RecordingWaiter("a", "b", own=("a", "b")), RecordingWaiter("b", own=("b",))
    subscriptions = subscribed_to_reply_channel(waiter, other)
    subscriptions.remove(waiter)
    assert len(subscriptions) == 1
    subscriptions.on_outcomes({"b": Cancelled(job="b")})
    assert other.events[-1] == Cancelled(job="b")
    assert len(subscriptions) == 0


def test_an_error_reaches_the_waiters_on_the_reply_channel():
    waiter = RecordingWaiter("a", own=("a",))
    subscriptions = subscribed_to_reply_channel(waiter)
    error = BrokerUnavailable("unreachable")
    subscriptions.fail(error)
    assert waiter.events[-1] is error
    assert not subscriptions
