"""A worker's consumer never gives Redis up, and tries again after 1 to 2 s by chance, whatever fails."""

from __future__ import annotations

import time
from typing import Any

import pytest
import redis
from celery.exceptions import WorkerShutdown
from celery.worker import state

from headrace_worker.app import app
from headrace_worker.process import consumer
from headrace_worker.process.consumer import Consumer


class Connection:
    """A connection of kombu's that fails at first. It counts its tries and its changes of the host."""

    recoverable_connection_errors = (redis.ConnectionError,)

    def __init__(self, failures: int) -> None:
        self.failures, self.tries, self.switches = failures, 0, 0

    def ensure_connection(self, **options: Any) -> None:
        assert options == {"max_retries": 0, "reraise_as_library_errors": False}
        self.tries += 1
        if self.tries <= self.failures:
            raise redis.ConnectionError("refused")

    def maybe_switch_next(self) -> None:
        self.switches += 1


@pytest.fixture
def waiting() -> Consumer:
    """A consumer that has not begun."""
    waiting = Consumer.__new__(Consumer)
    waiting._try_at = 0.0
    return waiting


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of each pause, none of which is waited."""
    now, pauses = [0.0], list[float]()
    monkeypatch.setattr(consumer, "_SHUTDOWN_CHECK_SECONDS", 10)

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return pauses


def test_a_consumer_tries_a_thousand_times_and_more(waiting: Consumer, pauses: list[float]) -> None:
    connection = Connection(failures=1000)
    waiting._pause()
    assert waiting.ensure_connected(connection) is connection
    assert (connection.tries, connection.switches) == (1001, 1000)
    assert len(pauses) == 1000
    assert min(pauses) >= 1
    assert max(pauses) <= 2
    assert len({round(pause, 1) for pause in pauses}) == 11  # by chance, over the whole range


def test_the_time_of_a_try_counts_as_pause(waiting: Consumer, pauses: list[float]) -> None:
    waiting._pause()
    time.sleep(5)  # a connection request that nobody answers
    waiting._pause()
    assert pauses == [5]


def test_a_connection_after_one_that_served_is_opened_at_once(waiting: Consumer, pauses: list[float]) -> None:
    for _ in range(3):
        waiting._pause()
        time.sleep(60)
    assert pauses == [60, 60, 60]


def test_a_worker_that_waits_for_redis_can_be_stopped(waiting: Consumer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "should_stop", 0)
    with pytest.raises(WorkerShutdown):
        waiting.ensure_connected(Connection(failures=1))


def test_the_app_uses_it() -> None:
    assert app.conf.worker_consumer == "headrace_worker.process.consumer:Consumer"
    assert app.conf.broker_connection_max_retries is None
