"""Who waits for what, and which channels that takes: decided without I/O."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.errors import BrokerUnavailable, HeadraceError
from headrace.results.subscriptions import CHUNK, Subscriptions
from headrace.wire.outcome import Cancelled, Outcome


class Watcher:
    def __init__(self, *jobs: str, look: bool = True, own: tuple[str, ...] = ()) -> None:
        self.jobs = set(jobs)
        self.own = set(own)
        self.look = look
        self.said: list[object] = []

    def on_subscribed(self, job: str) -> None:
        self.said.append(("confirmed", job))

    def on_outcome(self, outcomes: Mapping[str, Outcome]) -> None:
        self.jobs.difference_update(outcomes)
        self.said.extend(outcomes.values())

    def on_error(self, error: HeadraceError) -> None:
        self.said.append(error)


def subscribed(*watchers: Watcher) -> Subscriptions:
    subscriptions = Subscriptions()
    for watcher in watchers:
        subscriptions.add(watcher)
    while jobs := subscriptions.next_to_subscribe():
        for job in jobs:
            subscriptions.on_subscribed(job)
    return subscriptions


def test_a_job_is_looked_at_once_its_subscription_holds_and_not_before():
    watcher = Watcher("a")
    subscriptions = Subscriptions()
    subscriptions.add(watcher)
    assert subscriptions.next_to_subscribe() == ["a"]
    assert subscriptions.next_to_look_at() == []
    subscriptions.on_subscribed("a")
    assert subscriptions.next_to_look_at() == ["a"]
    assert subscriptions.next_to_look_at() == []


def test_a_job_not_yet_submitted_is_not_looked_at():
    subscriptions = subscribed(Watcher("a", look=False))
    assert subscriptions.next_to_look_at() == []


def test_an_outcome_reaches_every_waiter_of_its_job_once():
    first, second, other = Watcher("a"), Watcher("a"), Watcher("b")
    subscriptions = subscribed(first, second, other)
    for _ in range(2):
        subscriptions.on_outcome({"a": Cancelled(job="a")})
    for watcher in (first, second):
        assert watcher.said.count(Cancelled(job="a")) == 1
    assert Cancelled(job="a") not in other.said


def test_a_job_nobody_waits_for_is_unsubscribed_from_and_forgotten():
    watcher = Watcher("a")
    subscriptions = subscribed(watcher)
    subscriptions.on_outcome({"a": Cancelled(job="a")})
    assert subscriptions.next_to_unsubscribe() == ["a"]
    assert len(subscriptions) == 0


def test_a_waiter_that_gives_up_leaves_nothing_behind():
    gone, stays = Watcher("a", "b"), Watcher("b")
    subscriptions = subscribed(gone, stays)
    subscriptions.remove(gone)
    assert subscriptions.next_to_unsubscribe() == ["a"]
    subscriptions.remove(stays)
    assert subscriptions.next_to_unsubscribe() == ["b"]
    assert len(subscriptions) == 0


def test_a_waiter_that_gives_up_before_the_subscription_holds_leaves_nothing_behind():
    watcher = Watcher("a")
    subscriptions = Subscriptions()
    subscriptions.add(watcher)
    subscriptions.next_to_subscribe()
    subscriptions.remove(watcher)
    assert subscriptions.next_to_unsubscribe() == [], "its reply is still to come"
    subscriptions.on_subscribed("a")
    assert subscriptions.next_to_look_at() == []
    assert subscriptions.next_to_unsubscribe() == ["a"]
    assert len(subscriptions) == 0


def test_a_job_waited_for_again_is_not_unsubscribed_from():
    first, second = Watcher("a"), Watcher("a")
    subscriptions = subscribed(first)
    subscriptions.remove(first)
    subscriptions.add(second)
    assert subscriptions.next_to_unsubscribe() == []
    assert subscriptions.next_to_subscribe() == ["a"]
    subscriptions.on_subscribed("a")
    assert subscriptions.next_to_look_at() == ["a"]


def test_no_more_is_asked_for_while_much_is_unanswered():
    watcher = Watcher(*(f"job{number}" for number in range(3 * CHUNK)))
    subscriptions = Subscriptions()
    subscriptions.add(watcher)
    first = subscriptions.next_to_subscribe()
    assert len(first) == CHUNK
    assert subscriptions.next_to_subscribe() == []
    subscriptions.on_subscribed(first[0])
    assert len(subscriptions.next_to_subscribe()) == CHUNK


def test_a_new_connection_subscribes_to_all_and_looks_at_all():
    fresh, asked, gone = Watcher("a", look=False), Watcher("b"), Watcher("c")
    subscriptions = subscribed(fresh, asked, gone)
    subscriptions.next_to_look_at()
    subscriptions.remove(gone)
    subscriptions.start_over()
    assert sorted(subscriptions.next_to_subscribe()) == ["a", "b"]
    for job in ("a", "b"):
        subscriptions.on_subscribed(job)
    assert sorted(subscriptions.next_to_look_at()) == ["a", "b"]


def test_when_there_is_no_use_in_waiting_everybody_hears_it_once():
    first, second = Watcher("a", "b"), Watcher("b")
    subscriptions = subscribed(first, second)
    error = BrokerUnavailable("refused")
    subscriptions.fail(error)
    assert first.said.count(error) == second.said.count(error) == 1
    assert len(subscriptions) == 0


def test_what_nobody_asked_about_is_ignored():
    subscriptions = Subscriptions()
    subscriptions.on_subscribed("a")
    subscriptions.on_outcome({"a": Cancelled(job="a")})
    subscriptions.remove(Watcher("a"))
    assert len(subscriptions) == 0


def listening(*watchers: Watcher) -> Subscriptions:
    subscriptions = subscribed(*watchers)
    assert subscriptions.inbox.is_to_be_subscribed()
    subscriptions.inbox.confirmed()
    return subscriptions


def test_jobs_of_the_inbox_take_one_subscription_between_them():
    watcher = Watcher("a", "b", "c", own=("a", "b"))
    subscriptions = Subscriptions()
    subscriptions.add(watcher)
    assert subscriptions.next_to_subscribe() == ["c"]
    assert subscriptions.inbox.is_to_be_subscribed()
    assert not subscriptions.inbox.is_to_be_subscribed(), "once"


def test_jobs_of_the_inbox_are_looked_at_once_it_is_listened_to_and_not_before():
    watcher = Watcher("a", "b", own=("a", "b"))
    subscriptions = Subscriptions()
    subscriptions.add(watcher)
    assert subscriptions.next_to_look_at() == []
    subscriptions.inbox.is_to_be_subscribed()
    subscriptions.inbox.confirmed()
    assert sorted(subscriptions.next_to_look_at()) == ["a", "b"]
    assert sorted(watcher.said) == [("confirmed", "a"), ("confirmed", "b")]
    assert subscriptions.next_to_look_at() == []


def test_what_is_waited_for_later_is_looked_at_too():
    subscriptions = listening(Watcher("a", own=("a",)))
    subscriptions.next_to_look_at()
    subscriptions.add(Watcher("b", own=("b",)))
    assert subscriptions.next_to_look_at() == ["b"]


def test_what_is_left_in_the_inbox_is_looked_at_again():
    watcher = Watcher("a", "b", own=("a", "b"))
    subscriptions = listening(watcher)
    subscriptions.next_to_look_at()
    subscriptions.on_outcome({"a": Cancelled(job="a")})
    subscriptions.inbox.look_again()
    assert subscriptions.next_to_look_at() == ["b"]
    assert watcher.jobs == {"b"}


def test_the_inbox_is_listened_to_again_after_a_reconnect():
    watcher = Watcher("a", own=("a",))
    subscriptions = listening(watcher)
    subscriptions.next_to_look_at()
    subscriptions.start_over()
    assert subscriptions.inbox.is_to_be_subscribed()
    assert subscriptions.next_to_look_at() == []
    subscriptions.inbox.confirmed()
    assert subscriptions.next_to_look_at() == ["a"]


def test_who_leaves_the_inbox_leaves_nothing_there():
    watcher, other = Watcher("a", "b", own=("a", "b")), Watcher("b", own=("b",))
    subscriptions = listening(watcher, other)
    subscriptions.remove(watcher)
    assert len(subscriptions) == 1
    subscriptions.on_outcome({"b": Cancelled(job="b")})
    assert other.said[-1] == Cancelled(job="b")
    assert len(subscriptions) == 0


def test_a_failure_reaches_those_who_wait_by_the_inbox():
    watcher = Watcher("a", own=("a",))
    subscriptions = listening(watcher)
    error = BrokerUnavailable("gone")
    subscriptions.fail(error)
    assert watcher.said[-1] is error
    assert not subscriptions
