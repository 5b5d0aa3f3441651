"""The time between two looks of a worker whether the keeper of their queues is lost."""

from __future__ import annotations

import pytest

from headrace_worker.transport.election import RENEW_SECONDS, TTL_MS, look_seconds


@pytest.mark.parametrize("workers", [2, 3, 4, 8, 100])
def test_a_lost_keeper_is_replaced_soon_enough_for_jobs_of_a_lease_that_expires_meanwhile(workers: int) -> None:
    longest = max(look_seconds(workers) for _ in range(1000))
    looks_at_once = max(1, (workers - 1) // 3)  # a third of the others, as looks spread by chance
    assert TTL_MS / 1000 + longest / looks_at_once < 2.0, "the jobs of a lost worker run within the lease and 2 s"


@pytest.mark.parametrize("workers", [8, 100])
def test_workers_of_a_large_fleet_look_about_once_a_second(workers: int) -> None:
    assert sum(look_seconds(workers) for _ in range(1000)) / 1000 >= 0.98


def test_the_lock_survives_a_renewal_that_comes_late() -> None:
    assert TTL_MS / 1000 > 2 * RENEW_SECONDS
