"""Client tracking: when it is switched on and off, and when claims sleep."""

from __future__ import annotations

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from headrace.wire.keys import Keys
from headrace_worker.transport.notifications import QueueNotifications, covering_prefixes

NAMES = st.lists(st.text(alphabet="ab.", min_size=1, max_size=4))
OFF = ("CLIENT", "TRACKING", "OFF")


def watching(refusal: redis.ResponseError | None = None) -> QueueNotifications:
    """Return the notifications of one queue on a new connection."""
    notifications = QueueNotifications(7, 8, refusal)
    notifications.watch(Keys(), ["predict.churn"])
    return notifications


def claim(notifications: QueueNotifications, *, found_jobs: bool) -> list[tuple[object, ...]]:
    """Make a claim. Returns the commands that were sent before it."""
    commands = notifications.commands()
    notifications.receive([b"OK"] * len(commands))
    notifications.record_claim(found_jobs=found_jobs)
    return [tuple(command) for command in commands]


@given(NAMES)
def test_prefixes_cover_every_name_and_none_covers_another(names: list[str]) -> None:
    chosen = covering_prefixes(names)
    assert all(any(name.startswith(prefix) for prefix in chosen) for name in names)
    assert not any(a != b and a.startswith(b) for a in chosen for b in chosen)
    assert set(chosen) <= set(names)


def test_claims_sleep_after_the_second_empty_claim_which_switched_tracking_on() -> None:
    notifications = watching()
    assert claim(notifications, found_jobs=False) == []
    assert not notifications.is_asleep
    on = ("CLIENT", "TRACKING", "ON", "REDIRECT", 8, "BCAST")
    prefixes = ("PREFIX", "headrace:isolated:predict.churn", "PREFIX", "headrace:retried:predict.churn")
    expected = (*on, *prefixes, "PREFIX", "predict.churn", "NOLOOP")
    assert claim(notifications, found_jobs=False) == [OFF, expected]
    assert notifications.is_asleep
    notifications.wake()
    assert not notifications.is_asleep
    assert claim(notifications, found_jobs=False) == []  # tracking stays on
    assert notifications.is_asleep


def test_tracking_is_switched_off_when_claims_keep_finding_jobs() -> None:
    notifications = watching()
    for _ in range(2):
        claim(notifications, found_jobs=False)
    assert [claim(notifications, found_jobs=True) for _ in range(32)] == [[]] * 32
    assert claim(notifications, found_jobs=True) == [OFF]
    assert claim(notifications, found_jobs=False) == []
    assert not notifications.is_asleep


def test_a_change_while_a_claim_is_pending_keeps_the_claims_awake() -> None:
    notifications = watching()
    claim(notifications, found_jobs=False)
    notifications.receive([b"OK"] * len(notifications.commands()))
    notifications.wake()
    notifications.record_claim(found_jobs=False)
    assert not notifications.is_asleep


def test_other_queues_need_tracking_of_other_prefixes() -> None:
    notifications = watching()
    for _ in range(2):
        claim(notifications, found_jobs=False)
    notifications.watch(Keys(), ["predict.churn"])
    assert notifications.is_asleep
    notifications.watch(Keys(), ["predict.churn", "predict.fraud"])
    assert not notifications.is_asleep
    claim(notifications, found_jobs=False)
    assert "predict.fraud" in claim(notifications, found_jobs=False)[1]


@pytest.mark.parametrize("refused_when", ["subscribing", "tracking"])
def test_without_notifications_claims_sleep_until_the_next_poll(
    refused_when: str, caplog: pytest.LogCaptureFixture
) -> None:
    error = redis.ResponseError("NOPERM")
    notifications = watching(error if refused_when == "subscribing" else None)
    claim(notifications, found_jobs=False)
    commands = notifications.commands()
    notifications.receive([error] * len(commands))
    notifications.record_claim(found_jobs=False)
    assert notifications.is_asleep
    notifications.wake()
    assert claim(notifications, found_jobs=False) == []
    assert [record.getMessage().partition(" (")[0] for record in caplog.records] == [
        "Redis refuses to notify of new jobs"
    ]
