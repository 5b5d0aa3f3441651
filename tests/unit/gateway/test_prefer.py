"""The header Prefer."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from headrace_gateway.prefer import Preference, parse_prefer


@pytest.mark.parametrize(
    ("header", "preference"),
    [
        ("wait=10", Preference(10.0)),
        ("Wait=10", Preference(10.0)),
        ('wait="10"', Preference(10.0)),
        ("wait = 10", Preference(10.0)),
        ("respond-async", Preference(respond_async=True)),
        ("respond-async, wait=10", Preference(10.0, respond_async=True)),
        ("wait=10; strict, respond-async; a=b", Preference(10.0, respond_async=True)),
        ("return=minimal, wait=5", Preference(5.0)),
        ("wait=5, wait=50", Preference(5.0)),
    ],
)
def test_preferences_are_read_as_the_rfc_writes_them(header: str, preference: Preference) -> None:
    assert parse_prefer(Headers({"prefer": header})) == preference


@pytest.mark.parametrize(
    "header", ["", "wait", "wait=", "wait=soon", "wait=-1", "wait=1.5", "waiting=5", "wait=²", ",,,"]
)
def test_what_is_no_preference_is_ignored(header: str) -> None:
    assert parse_prefer(Headers({"prefer": header})) == Preference()
    assert parse_prefer(Headers()) == Preference()


@pytest.mark.parametrize(
    ("preference", "seconds", "applied"),
    [
        (Preference(), 30, None),
        (Preference(5.0), 5, "wait=5"),
        (Preference(500.0), 60, "wait=60"),
        (Preference(respond_async=True), 0, "respond-async"),
        (Preference(5.0, respond_async=True), 5, "wait=5"),
    ],
)
def test_a_wait_is_that_of_the_request_up_to_a_limit(
    preference: Preference, seconds: float, applied: str | None
) -> None:
    assert (preference.seconds(30, 60), preference.applied(60)) == (seconds, applied)


def test_a_header_of_a_hostile_length_costs_no_more_than_a_short_one() -> None:
    assert parse_prefer(Headers({"prefer": "a=" * 100_000})) == Preference()


def test_preferences_may_come_in_several_headers() -> None:
    headers = Headers(raw=[(b"prefer", b"respond-async"), (b"host", b"a"), (b"prefer", b"wait=7")])
    assert parse_prefer(headers) == Preference(7.0, respond_async=True)
