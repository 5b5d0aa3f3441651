"""Where the next job is waited for, and where it may come anywhere."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import pytest

from headrace.wire.keys import Keys
from headrace_worker.transport.blocking_claim import BlockingClaim
from headrace_worker.transport.claims import Claim, ClaimLimits, Lease

CHURN, FRAUD = ClaimLimits(queue="predict.churn"), ClaimLimits(queue="predict.fraud")


@pytest.fixture
def names() -> Callable[[], str]:
    numbers = itertools.count(1)
    return lambda: f"host/1/x/{next(numbers)}"


@pytest.fixture
def standing() -> BlockingClaim:
    return BlockingClaim(Keys(), lasts=10)


def claimed(queue: str, *origins: tuple[int, int]) -> Claim:
    return Claim(lease=Lease(name="host/1/x/0", queue=queue, origins=origins), queued_messages=[b""])


def test_a_lease_stands_where_the_last_two_claims_came_from(
    standing: BlockingClaim, names: Callable[[], str]
) -> None:
    assert standing.offered([CHURN], names) is None
    standing.record_claim(claimed("predict.churn", (1, 1)))
    assert standing.offered([CHURN], names) is None
    standing.record_claim(claimed("predict.churn", (1, 7), (4, 2)))
    lease = standing.offered([FRAUD, CHURN], names)
    assert lease == Lease(name="host/1/x/1", queue="predict.churn", origins=((1, 1),), blocking=True)
    assert standing.offered([CHURN], names) == lease  # the same, as long as nothing is claimed
    assert standing.source == "predict.churn"
    standing.record_claim(claimed("predict.churn", (1, 1)))
    assert standing.offered([CHURN], names) == Lease(
        name="host/1/x/2", queue="predict.churn", origins=((1, 1),), blocking=True
    )  # a name of its own


@pytest.mark.parametrize(
    ("last", "asks"),
    [
        pytest.param(claimed("predict.churn", (2, 1)), [CHURN], id="another list"),
        pytest.param(claimed("predict.fraud", (1, 1)), [CHURN, FRAUD], id="another queue"),
        pytest.param(claimed("predict.churn", (1, 1)), [FRAUD], id="a queue of which no more is wanted"),
        pytest.param(
            claimed("predict.churn", (1, 1)), [ClaimLimits(queue="predict.churn", wait=0.1)], id="one that fills"
        ),
        pytest.param(
            claimed("predict.churn", (1, 1)),
            [ClaimLimits(queue="predict.churn", leased=False)],
            id="one without leases",
        ),
    ],
)
def test_none_stands_where_the_next_job_may_come_anywhere(
    standing: BlockingClaim, names: Callable[[], str], last: Claim, asks: list[ClaimLimits]
) -> None:
    standing.record_claim(claimed("predict.churn", (1, 1)))
    standing.record_claim(last)
    assert standing.offered(asks, names) is None


@pytest.mark.parametrize("claim", [claimed("predict.churn", (0, 1)), claimed("ordinary", (1, 1))])
def test_none_stands_for_what_was_lost_and_for_ordinary_tasks(
    standing: BlockingClaim, names: Callable[[], str], claim: Claim
) -> None:
    standing.record_claim(claim)
    standing.record_claim(claim)
    assert standing.offered([CHURN, ClaimLimits(queue="ordinary")], names) is None


def test_a_wait_begins_only_while_nobody_can_have_taken_the_lease_away(names: Callable[[], str]) -> None:
    standing = BlockingClaim(Keys(), lasts=0.1)
    for _ in range(2):
        standing.record_claim(claimed("predict.churn", (1, 1)))
    lease = standing.offered([CHURN], names)
    assert standing.waiting() is None  # as far as we know, it does not stand
    standing.is_parked(True, time.monotonic())
    assert standing.waiting() == lease
    standing.is_parked(True, time.monotonic() - 0.06)  # the reply was long on its way
    assert standing.waiting() is None
    standing.is_parked(False, time.monotonic())
    assert standing.waiting() is None


def test_for_a_while_after_redis_would_not_wait_none_is_waited_for(
    standing: BlockingClaim, names: Callable[[], str]
) -> None:
    for _ in range(2):
        standing.record_claim(claimed("predict.churn", (1, 1)))
    lease = standing.offered([CHURN], names)
    standing.is_parked(True, time.monotonic())
    standing.pause()
    assert standing.waiting() is None
    assert standing.offered([CHURN], names) == lease  # a job may be under it, which the next claim finds
    standing.record_claim(claimed("predict.churn", (1, 1)))
    assert standing.offered([CHURN], names) is None
