"""Redis is away: a process logs the begin and the end, and little between, however many loops fail each second."""

from __future__ import annotations

import logging

import pytest
from redis import exceptions

from headrace import Settings
from headrace.connection.outage_log import OutageLog, explainer, is_outage
from tests.support.fake_clock import FakeClock

REFUSED = exceptions.ConnectionError("Error 111 connecting to db:6379. Connection refused.")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def outages(clock: FakeClock) -> OutageLog:
    settings = Settings(redis_url="redis://user:pa55@db:6379/0")
    return OutageLog(logging.getLogger("outages"), explainer(settings), clock)


def test_an_outage_has_a_line_at_its_begin_and_one_at_its_end(
    outages: OutageLog, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    for component in ("consumer", "leases", "models"):
        outages.failed(component, REFUSED)
        clock.advance(1)
    assert "cannot be reached" in outages.cause
    for component in ("leases", "models", "consumer", "consumer"):
        outages.succeeded(component)
    begin, end = caplog.messages
    assert begin.startswith(
        "Redis at db:6379 cannot be reached (Error 111 connecting to db:6379. Connection refused)"
    )
    assert begin.endswith("? Waiting for it")
    assert end == "Redis answers again, after 3.0 s"
    assert not outages.cause


def test_a_day_without_redis_is_a_hundred_lines_and_not_one_each_second(
    outages: OutageLog, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(24 * 3600):
        clock.advance(1)
        outages.failed("consumer", REFUSED)
        outages.failed("leases", REFUSED)
    assert 50 < len(caplog.messages) <= 101
    assert caplog.messages[1].startswith("for 60 s: Redis at db:6379 cannot be reached")
    assert caplog.messages[2].startswith("for 180 s: ")


def test_a_new_cause_is_logged_once_and_never_without_end(
    outages: OutageLog, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        outages.failed("consumer", REFUSED)
        outages.failed("consumer", exceptions.BusyLoadingError("LOADING Redis is loading the dataset in memory"))
    assert [message.split(" is ")[-1] for message in caplog.messages][1:] == [
        "still loading its data; try again in a moment. Waiting for it"
    ]
    for number in range(100):
        outages.failed("consumer", exceptions.ConnectionError(f"error {number}"))
    assert len(caplog.messages) == 5


def test_no_line_holds_the_password(outages: OutageLog, caplog: pytest.LogCaptureFixture) -> None:
    for error in (
        exceptions.AuthenticationError("invalid username-password pair or user is disabled."),
        OSError("the network is unreachable"),
        exceptions.TimeoutError("Timeout reading from socket"),
    ):
        outages.failed("consumer", error)
    assert len(caplog.messages) == 3
    assert "pa55" not in caplog.text
    assert "refuses the user or password" in caplog.text


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (REFUSED, True),
        (exceptions.TimeoutError(), True),
        (exceptions.AuthenticationError("WRONGPASS"), True),
        (exceptions.BusyLoadingError(), True),
        (exceptions.ReadOnlyError("READONLY"), True),
        (OSError("no route"), True),
        (exceptions.NoPermissionError("NOPERM"), False),
        (exceptions.ResponseError("WRONGTYPE"), False),
        (ValueError("not Redis at all"), False),
    ],
)
def test_an_outage_is_what_waiting_may_cure(error: Exception, expected: bool) -> None:
    assert is_outage(error) is expected
