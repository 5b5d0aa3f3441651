"""The step after an attempt: nothing more, another attempt at the next delay, or a dead letter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from headrace.clock import to_unix_ms
from headrace.wire.attempts import REPLAY, REQUEUED, Attempt
from headrace.wire.notice import NOTICE_SECONDS, Notice, NoticeContent
from headrace.wire.record import Record
from headrace_gateway.notify.schedule import JITTER, SCHEDULE, Answer, decide, parse_retry_after, parse_schedule

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
NOW_MS = to_unix_ms(NOW)


def attempts(count: int, cause: str = "http-500", at_ms: int = NOW_MS) -> tuple[Attempt, ...]:
    return (Attempt(cause=cause, owner="host", at_ms=at_ms, claim_size=1),) * count


def notice(*history: Attempt, at_ms: int = NOW_MS) -> Notice:
    content = NoticeContent(job="a", status="success", at_ms=at_ms, record=Record(model="churn", notify="orders"))
    return Notice(id="a.success", content=content, attempts=history, message=b"", stored=b"")


def decided(status: int | None, *history: Attempt, at_ms: int = NOW_MS, **answer: str):
    return decide(
        notice(*history, at_ms=at_ms),
        Answer(status=status, **answer),
        now_ms=NOW_MS,
        draw=lambda low, high: (low + high) / 2,
    )


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_a_success_is_the_end(status):
    assert decided(status).kind == "done"


def test_a_receiver_that_is_gone_gets_no_second_request():
    assert decided(410).kind == "dead"


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 401, 404, 429, 500, 502, 503, None])
def test_any_other_answer_is_followed_by_the_next_delay(status):
    delays = [decided(status, *attempts(count)).delay for count in range(len(SCHEDULE) - 1)]
    assert delays == pytest.approx(SCHEDULE[1:])


@pytest.mark.parametrize("status", [302, 500, None])
def test_after_the_last_attempt_the_notice_is_a_dead_letter(status):
    assert [decided(status, *attempts(count)).kind for count in range(len(SCHEDULE))] == [
        *["again"] * (len(SCHEDULE) - 1),
        "dead",
    ]


def test_delays_differ_by_a_fifth_at_most():
    delays = {decide(notice(), Answer(status=500), now_ms=NOW_MS).delay for _ in range(200)}
    assert len(delays) > 100
    assert min(delays) >= SCHEDULE[1] * (1 - JITTER)
    assert max(delays) <= SCHEDULE[1] * (1 + JITTER)


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_obeyed_and_costs_no_attempt(status):
    decision = decided(status, *attempts(6), retry_after="120")
    assert (decision.kind, decision.counts, decision.rests) == ("again", False, True)
    assert 120 <= decision.delay <= 120 * (1 + JITTER)


def test_retry_after_of_another_status_changes_nothing():
    decision = decided(500, retry_after="120")
    assert (decision.delay, decision.counts) == (pytest.approx(SCHEDULE[1]), True)


def test_retry_after_is_obeyed_no_longer_than_an_outcome_is_kept():
    old = NOW_MS - 1000 * (NOTICE_SECONDS - 60)
    assert decided(429, at_ms=old, retry_after="30").kind == "again"
    assert decided(429, at_ms=old, retry_after="90").kind == "dead"


def test_a_replay_begins_the_schedule_anew():
    history = (*attempts(7), *attempts(1, REPLAY))
    old = NOW_MS - 3000 * NOTICE_SECONDS
    assert decided(500, *history, at_ms=old).delay == pytest.approx(SCHEDULE[1])
    assert decided(429, *history, at_ms=old, retry_after="90").kind == "again"


def test_attempts_that_do_not_count_do_not_advance_the_schedule():
    assert decided(500, *attempts(5, REQUEUED)).delay == pytest.approx(SCHEDULE[1])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120),
        (" 120 ", 120),
        ("0", 1),
        (format_datetime(NOW + timedelta(minutes=5), usegmt=True), 300),
        (format_datetime(NOW - timedelta(minutes=5), usegmt=True), 1),
        ("9" * 400, 36_000),
        ("-5", None),
        ("soon", None),
        ("١٢", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_within_bounds(text, seconds):
    assert parse_retry_after(text, NOW_MS) == seconds


def test_the_schedule_ends_before_an_outcome_is_deleted():
    assert sum(SCHEDULE) * (1 + JITTER) < NOTICE_SECONDS
    assert parse_schedule(",".join(map(str, SCHEDULE))) == SCHEDULE


@pytest.mark.parametrize("text", ["", "soon", "0,-1", "0,inf", "0,nan", "0,80000"])
def test_a_schedule_that_cannot_be_used_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        parse_schedule(text)
