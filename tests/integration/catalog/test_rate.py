"""The rate of a caller, counted by Redis: exact numbers of jobs, at moments that the test sets."""

from __future__ import annotations

import time

import pytest
import redis

from headrace.catalog.callers import Rate
from headrace.catalog.rate import Grant, decode_grant, take_command
from headrace.connection.commands import execute
from headrace.wire.keys import Keys

KEYS = Keys()
#: A window so long that no time passes in a test.
HOUR = 3600


def take(server: redis.Redis, rate: Rate, jobs: int = 1, caller: str = "shop") -> Grant:
    """Ask for jobs of a caller."""
    return decode_grant(execute(server, take_command(KEYS, caller, rate, jobs)))


def pass_time(server: redis.Redis, seconds: float) -> None:
    """Let the clock of the caller's rate be later: its moment is earlier by as much."""
    whole, fraction = server.get(KEYS.rate("shop")).split()
    server.set(KEYS.rate("shop"), b"%d %s" % (int(whole) - round(seconds * 1e6), fraction), keepttl=True)


@pytest.mark.parametrize("quota", [1, 3, 7, 60, 997])
def test_a_quota_is_granted_at_once_job_by_job_and_not_one_more(server: redis.Redis, quota: int):
    rate = Rate(quota, HOUR)
    grants = [take(server, rate) for _ in range(quota + 3)]
    assert [grant.jobs for grant in grants] == [1] * quota + [0] * 3
    assert [grant.left for grant in grants] == [*range(quota - 1, -1, -1), 0, 0, 0]


@pytest.mark.parametrize("quota", [1, 7, 997])
def test_after_a_full_quota_each_part_of_the_window_grants_one_job(server: redis.Redis, quota: int):
    rate = Rate(quota, HOUR)
    assert take(server, rate, quota).jobs == quota
    for _ in range(5):
        pass_time(server, HOUR / quota + 0.001)
        assert [take(server, rate).jobs for _ in range(2)] == [1, 0]


def test_a_batch_is_granted_in_part_and_told_when_the_next_job_is(server: redis.Redis):
    rate = Rate(10, HOUR)
    assert take(server, rate, 4) == Grant(4, 6, 0.0, pytest.approx(4 * 360, abs=1))
    grant = take(server, rate, 9)
    assert (grant.jobs, grant.left) == (6, 0)
    assert 350 < grant.retry_after <= 360
    assert 3590 < grant.reset <= HOUR


def test_a_refusal_costs_nothing(server: redis.Redis):
    rate = Rate(2, HOUR)
    assert take(server, rate, 2).jobs == 2
    before = server.get(KEYS.rate("shop"))
    assert [take(server, rate).jobs for _ in range(20)] == [0] * 20
    assert server.get(KEYS.rate("shop")) == before


def test_callers_have_rates_of_their_own(server: redis.Redis):
    rate = Rate(1, HOUR)
    assert [take(server, rate, caller=caller).jobs for caller in ("a", "b", "a", "b")] == [1, 1, 0, 0]


def test_the_state_ends_when_the_quota_is_whole_again(server: redis.Redis):
    take(server, Rate(10, HOUR), 5)
    assert 0 < server.pttl(KEYS.rate("shop")) <= HOUR / 2 * 1000 + 2


def test_a_faster_rate_holds_at_once_for_a_caller_that_had_used_up_a_slow_one(server: redis.Redis):
    assert take(server, Rate(1, HOUR)).jobs == 1
    assert take(server, Rate(100_000, 1)).retry_after <= 1e-5
    time.sleep(0.001)
    assert take(server, Rate(100_000, 1)).jobs == 1


@pytest.mark.parametrize("stored", ["", "x", "9" * 500, "-5 0.1", "1e999 0.1", "nan nan", "1 0.1\n2", b"\xff"])
def test_a_state_that_is_none_counts_as_empty_or_as_used_up_and_heals(server: redis.Redis, stored: str | bytes):
    server.set(KEYS.rate("shop"), stored)
    rate = Rate(100_000, 1)
    take(server, rate)
    time.sleep(0.001)
    assert take(server, rate).jobs == 1
