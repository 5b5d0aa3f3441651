"""A worker lives while its event loop turns, or while it waits for Redis; what is stopped says nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headrace.errors import HeadraceError
from headrace_worker.telemetry.health import HUNG_SECONDS, STALE_SECONDS, Health, HealthFile, read_status


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(clock)


def live_ready(health: Health) -> tuple[bool, bool]:
    verdict = health.status()
    return verdict.live, verdict.ready


def test_a_worker_that_loads_models_for_an_hour_lives_and_is_not_ready(health: Health, clock: Clock) -> None:
    clock.now = 3600
    assert live_ready(health) == (True, False)
    assert "starts" in health.status().reason


def test_a_worker_is_ready_once_its_models_are(health: Health) -> None:
    health.mark_connected()
    health.record_heartbeat()
    health.mark_ready()
    assert live_ready(health) == (True, True)


def test_a_worker_whose_event_loop_stands_still_hangs(health: Health, clock: Clock) -> None:
    health.mark_ready()
    health.record_heartbeat()
    clock.now = HUNG_SECONDS - 1
    assert live_ready(health) == (True, True)
    clock.now = HUNG_SECONDS + 1
    assert live_ready(health) == (False, False)
    assert "hangs" in health.status().reason


def test_a_worker_that_waits_for_redis_is_not_to_be_restarted(health: Health, clock: Clock) -> None:
    health.mark_ready()
    health.record_heartbeat()
    health.mark_disconnected()
    clock.now = 10 * HUNG_SECONDS
    assert live_ready(health) == (True, True)
    assert "Redis is away" in health.status().reason


def test_a_worker_that_waits_for_a_redis_that_fell_silent_is_not_to_be_restarted(
    health: Health, clock: Clock
) -> None:
    health.mark_ready()
    health.record_heartbeat()
    health.mark_request_sent()
    clock.now = 10 * HUNG_SECONDS
    health.mark_request_sent()
    assert live_ready(health) == (True, True)
    assert "Redis does not answer" in health.status().reason
    health.mark_reply_received()
    assert health.status().reason == "all is well"  # its event loop has time again
    clock.now += HUNG_SECONDS + 1
    assert live_ready(health) == (False, False)


def test_an_event_loop_that_hangs_while_redis_answers_hangs(health: Health, clock: Clock) -> None:
    health.mark_ready()
    health.record_heartbeat()
    for _ in range(40):
        health.mark_request_sent()
        health.mark_reply_received()
        clock.now += 1
    health.mark_request_sent()
    assert live_ready(health) == (False, False)
    assert "hangs" in health.status().reason


def test_a_worker_that_is_told_to_stop_takes_no_more(health: Health) -> None:
    health.mark_ready()
    health.mark_stopping()
    assert live_ready(health) == (True, False)


def test_the_file_says_what_the_worker_says(health: Health, tmp_path: Path) -> None:
    path = tmp_path / "health"
    file = HealthFile(str(path), health)
    file.start()
    assert not read_status(path, path.stat().st_mtime).ready
    health.mark_ready()
    file.update()
    verdict = read_status(path, path.stat().st_mtime)
    assert (verdict.ready, verdict.pid) == (True, os.getpid())
    gone = read_status(path, path.stat().st_mtime + STALE_SECONDS + 1)
    assert (gone.live, gone.ready) == (False, False)
    file.remove()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(HeadraceError, match="no worker writes"):
        read_status(path, 0)


def test_a_file_of_something_else_is_said_to_be_that(tmp_path: Path) -> None:
    (tmp_path / "health").write_text("hello")
    with pytest.raises(HeadraceError, match="cannot be read"):
        read_status(tmp_path / "health", 0)


def test_a_folder_that_takes_no_file_stops_no_worker(
    health: Health, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = HealthFile(str(tmp_path / "no" / "health"), health)
    file.start()
    file.update()
    file.remove()
    assert len(caplog.records) == 1
    assert "HEADRACE_HEALTH_FILE" in caplog.text
