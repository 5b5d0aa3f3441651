"""The health of a worker: live while its event loop turns or Redis keeps it waiting; a stale file is not live."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
import redis

from headrace import Settings
from headrace.connection.outage_log import OutageLog, explainer
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
    status = health.status()
    return status.live, status.ready


def test_a_worker_that_loads_models_for_an_hour_is_live_and_not_ready(health: Health, clock: Clock) -> None:
    clock.now = 3600
    assert live_ready(health) == (True, False)
    assert "starts" in health.status().reason


def test_a_worker_that_starts_says_what_it_waits_for(clock: Clock) -> None:
    settings = Settings(redis_url="redis://user:pa55@db:6379/0")
    health = Health(clock, OutageLog(logging.getLogger("outages"), explainer(settings)), server="db:6379")
    reasons = [health.status().reason]
    health.mark_model("churn", 2, 5)
    reasons.append(health.status().reason)
    health.mark_version("churn", "3")
    reasons.append(health.status().reason)
    health.mark_loaded()
    refusal = redis.ConnectionError("Error 111 connecting to db:6379. Connection refused.")
    health.outages.failed("consumer", refusal)
    reasons.append(health.status().reason)
    health.outages.failed("consumer", redis.AuthenticationError("invalid username-password pair"))
    reasons.append(health.status().reason)
    health.outages.succeeded("consumer")
    health.mark_connected()
    health.mark_version("churn", "4")  # a version that arrives while the pool processes load
    reasons.append(health.status().reason)
    refused = "which cannot be reached (Error 111 connecting to db:6379. Connection refused)"
    assert reasons[3].startswith(f"the worker starts: it waits for Redis at db:6379, {refused}; is it running")
    assert reasons[4].startswith(
        "the worker starts: it waits for Redis at db:6379, which refuses the user or password"
    )
    assert reasons[:3] + reasons[5:] == [
        "the worker starts: its models are being loaded",
        "the worker starts: it loads model churn (2 of 5)",
        "the worker starts: it loads model churn version 3 (2 of 5)",
        "the worker starts: its pool processes load their models",
    ]
    assert "pa55" not in "".join(reasons)
    assert not health.status().ready
    health.mark_ready()
    assert health.status().reason == "all is well"


def test_a_worker_is_ready_once_its_models_are(health: Health) -> None:
    health.mark_connected()
    health.record_heartbeat()
    health.mark_ready()
    assert live_ready(health) == (True, True)


def test_a_worker_whose_event_loop_does_not_turn_hangs(health: Health, clock: Clock) -> None:
    health.mark_ready()
    health.record_heartbeat()
    clock.now = HUNG_SECONDS - 1
    assert live_ready(health) == (True, True)
    clock.now = HUNG_SECONDS + 1
    assert live_ready(health) == (False, False)
    assert "hangs" in health.status().reason


def test_a_worker_without_a_connection_to_redis_stays_live(health: Health, clock: Clock) -> None:
    health.mark_ready()
    health.record_heartbeat()
    health.mark_disconnected()
    clock.now = 10 * HUNG_SECONDS
    assert live_ready(health) == (True, True)
    assert health.status().reason == "the worker waits for Redis"


def test_a_worker_stays_live_while_redis_does_not_answer(health: Health, clock: Clock) -> None:
    health.mark_ready()
    health.record_heartbeat()
    health.mark_request_sent()
    clock.now = 10 * HUNG_SECONDS
    health.mark_request_sent()
    assert live_ready(health) == (True, True)
    assert "which does not answer" in health.status().reason
    health.mark_reply_received()
    assert health.status().reason == "all is well"  # the event loop has its full time again
    clock.now += HUNG_SECONDS + 1
    assert live_ready(health) == (False, False)


def test_an_event_loop_that_does_not_turn_while_redis_answers_hangs(health: Health, clock: Clock) -> None:
    health.mark_ready()
    health.record_heartbeat()
    for _ in range(40):
        health.mark_request_sent()
        health.mark_reply_received()
        clock.now += 1
    health.mark_request_sent()
    assert live_ready(health) == (False, False)
    assert "hangs" in health.status().reason


def test_a_worker_that_is_shutting_down_is_live_and_not_ready(health: Health) -> None:
    health.mark_ready()
    health.mark_stopping()
    assert live_ready(health) == (True, False)
    assert "shutting down" in health.status().reason


def test_the_file_has_the_status_of_the_worker(health: Health, tmp_path: Path) -> None:
    path = tmp_path / "health"
    file = HealthFile(str(path), health)
    file.start()
    assert not read_status(path, path.stat().st_mtime).ready
    health.mark_ready()
    file.update()
    status = read_status(path, path.stat().st_mtime)
    assert (status.ready, status.pid) == (True, os.getpid())
    stale = read_status(path, path.stat().st_mtime + STALE_SECONDS + 1)
    assert (stale.live, stale.ready) == (False, False)
    file.remove()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(HeadraceError, match="there is no health file"):
        read_status(path, 0)


def test_a_file_with_other_content_is_refused(tmp_path: Path) -> None:
    (tmp_path / "health").write_text("hello")
    with pytest.raises(HeadraceError, match="cannot be read"):
        read_status(tmp_path / "health", 0)


def test_a_file_that_cannot_be_written_is_logged_once_and_raises_nothing(
    health: Health, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = HealthFile(str(tmp_path / "no" / "health"), health)
    file.start()
    file.update()
    file.remove()
    assert len(caplog.records) == 1
    assert "HEADRACE_HEALTH_FILE" in caplog.text
