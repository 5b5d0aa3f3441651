"""A loop that follows something survives any error; a worker is not ready while one is dead or late."""

from __future__ import annotations

import threading

import pytest
import redis

from headrace_worker.telemetry.health import Health
from tests.support.fake_clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def health(clock: FakeClock) -> Health:
    health = Health(clock)
    health.mark_connected()
    health.mark_ready()
    return health


def run_in_thread(function: object) -> None:
    thread = threading.Thread(target=function)  # type: ignore[arg-type]
    thread.start()
    thread.join()


def test_a_loop_that_has_not_begun_is_no_part_of_the_health(health: Health, clock: FakeClock) -> None:
    health.watch_loop("models", late_after=30)
    clock.advance(1000)
    assert health.loops() == []
    assert health.status().ready


def test_a_loop_is_late_when_no_round_ends_in_time_and_the_worker_is_not_ready(
    health: Health, clock: FakeClock
) -> None:
    loop = health.watch_loop("models", late_after=30)
    loop.begin_round()
    clock.advance(30)
    assert health.status().ready
    clock.advance(1)
    status = health.status()
    assert (status.live, status.ready) == (True, False)
    assert status.reason == "the loop `models` has not completed a round for 31 s"
    loop.end_round()
    assert health.status().ready
    assert [(state.name, state.age_seconds, state.problem) for state in health.loops()] == [("models", 0, None)]


def test_a_round_while_redis_is_away_is_in_time_and_one_that_fails_for_another_reason_is_not(
    health: Health, clock: FakeClock
) -> None:
    loop = health.watch_loop("leases", late_after=30)
    for error, is_ready in (
        (redis.ConnectionError("refused"), True),
        (OSError("no store"), True),
        (redis.ResponseError("WRONGTYPE Operation"), False),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), False),
    ):
        loop.begin_round()
        loop.end_round()
        clock.advance(31)
        loop.begin_round()
        loop.end_round(error)
        assert health.status().ready == is_ready
    assert "its rounds fail: UnicodeDecodeError" in health.status().reason


def test_a_loop_whose_thread_has_ended_is_dead_at_once(health: Health) -> None:
    loop = health.watch_loop("models", late_after=30)
    run_in_thread(loop.begin_round)
    assert not health.status().ready
    assert health.status().reason == "the loop `models` has ended; restart this process"


def test_an_error_of_any_kind_ends_a_round_and_not_the_loop(
    health: Health, caplog: pytest.LogCaptureFixture
) -> None:
    loop, stop, rounds = health.watch_loop("models", late_after=30), threading.Event(), []

    def run_round() -> None:
        rounds.append(len(rounds))
        if len(rounds) == 5:
            stop.set()
        if len(rounds) < 5:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid")

    loop.run_rounds(run_round, stop, 0.001)
    assert rounds == [0, 1, 2, 3, 4]
    assert health.status().ready
    assert caplog.text.count("a round of the loop `models` failed") == 1  # once, not each second
