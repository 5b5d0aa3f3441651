"""The lease that an idle worker parks: at which list, and for how long it may wait there."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import redis

from headrace.wire.keys import Keys
from headrace_worker.transport.blocking_claim import BlockingClaim
from headrace_worker.transport.claims import Claim, ClaimLimits, Lease
from tests.support.fake_clock import FakeClock

CHURN, FRAUD = ClaimLimits(queue="predict.churn"), ClaimLimits(queue="predict.fraud")


@pytest.fixture
def next_name() -> Callable[[], str]:
    numbers = itertools.count(1)
    return lambda: f"host/1/x/{next(numbers)}"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def blocking(clock: FakeClock) -> BlockingClaim:
    return BlockingClaim(Keys(), 10, clock)


def claim_from(queue: str, *origins: tuple[int, int]) -> Claim:
    return Claim(lease=Lease(name="host/1/x/0", queue=queue, origins=origins), queued_messages=[b""])


def claim_twice(blocking: BlockingClaim) -> None:
    """Record two claims from the same list, so that a lease is offered."""
    for _ in range(2):
        blocking.record_claim(claim_from("predict.churn", (1, 1)))


def blocking_lease(number: int) -> Lease:
    return Lease(name=f"host/1/x/{number}", queue="predict.churn", origins=((1, 1),), blocking=True)


def test_a_lease_is_offered_for_the_list_of_the_last_two_claims(
    blocking: BlockingClaim, next_name: Callable[[], str]
) -> None:
    assert blocking.offer([CHURN], next_name) is None
    blocking.record_claim(claim_from("predict.churn", (1, 1)))
    assert blocking.offer([CHURN], next_name) is None
    blocking.record_claim(claim_from("predict.churn", (1, 7), (4, 2)))
    assert blocking.offer([FRAUD, CHURN], next_name) == blocking_lease(1)
    assert blocking.offer([CHURN], next_name) == blocking_lease(1)  # the same, as long as nothing is claimed
    assert blocking.source_key == "predict.churn"
    blocking.record_claim(claim_from("predict.churn", (1, 1)))
    assert blocking.offer([CHURN], next_name) == blocking_lease(2)  # a name is never used twice


@pytest.mark.parametrize(
    ("last", "limits"),
    [
        pytest.param(claim_from("predict.churn", (2, 1)), [CHURN], id="another list"),
        pytest.param(claim_from("predict.fraud", (1, 1)), [CHURN, FRAUD], id="another queue"),
        pytest.param(claim_from("predict.churn", (1, 1)), [FRAUD], id="a queue that is not claimed from"),
        pytest.param(
            claim_from("predict.churn", (1, 1)),
            [ClaimLimits(queue="predict.churn", wait=0.1)],
            id="a queue that fills",
        ),
        pytest.param(
            claim_from("predict.churn", (1, 1)),
            [ClaimLimits(queue="predict.churn", leased=False)],
            id="a queue without leases",
        ),
    ],
)
def test_no_lease_is_offered_if_the_next_job_may_come_from_any_list(
    blocking: BlockingClaim, next_name: Callable[[], str], last: Claim, limits: list[ClaimLimits]
) -> None:
    blocking.record_claim(claim_from("predict.churn", (1, 1)))
    blocking.record_claim(last)
    assert blocking.offer(limits, next_name) is None


@pytest.mark.parametrize("claim", [claim_from("predict.churn", (0, 1)), claim_from("ordinary", (1, 1))])
def test_no_lease_is_offered_for_isolated_jobs_and_ordinary_tasks(
    blocking: BlockingClaim, next_name: Callable[[], str], claim: Claim
) -> None:
    blocking.record_claim(claim)
    blocking.record_claim(claim)
    assert blocking.offer([CHURN, ClaimLimits(queue="ordinary")], next_name) is None


def test_a_lease_is_waited_under_only_while_nobody_can_have_ended_it(
    blocking: BlockingClaim, clock: FakeClock, next_name: Callable[[], str]
) -> None:
    claim_twice(blocking)
    lease = blocking.offer([CHURN], next_name)
    assert blocking.parked_lease() is None  # not known to be parked yet
    sent_at = clock()
    clock.advance(4.9)
    blocking.record_nothing(parked=True, sent_at=sent_at)
    assert blocking.parked_lease() == lease
    clock.advance(0.2)  # more than half a lease after the claim was sent
    assert blocking.parked_lease() is None
    blocking.record_nothing(parked=True, sent_at=sent_at)  # the reply was long on its way
    assert blocking.parked_lease() is None
    blocking.record_nothing(parked=False, sent_at=clock())
    assert blocking.parked_lease() is None


@pytest.mark.parametrize(
    ("refusal", "seconds"),
    [
        (redis.exceptions.NoPermissionError("this user has no permissions to run the 'blmove' command"), 60),
        (redis.ResponseError("unknown command 'BLMOVE', with args beginning with: "), 60),
        (redis.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"), 60),
        (redis.ResponseError("MISCONF Errors writing to the AOF file: No space left on device"), 1),
        (redis.exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), 1),
        (redis.ResponseError("UNBLOCKED force unblock from blocking operation, instance state changed"), 1),
    ],
)
def test_a_worker_does_not_wait_after_redis_refused_for_as_long_as_the_refusal_may_last(
    blocking: BlockingClaim,
    clock: FakeClock,
    next_name: Callable[[], str],
    refusal: redis.ResponseError,
    seconds: float,
) -> None:
    claim_twice(blocking)
    lease = blocking.offer([CHURN], next_name)
    blocking.record_nothing(parked=True, sent_at=clock())
    assert blocking.receive([refusal, 1.0, 0, 0, (0, 0)]) is None
    blocking.record_nothing(parked=True, sent_at=clock())
    assert blocking.parked_lease() is None
    assert blocking.offer([CHURN], next_name) == lease  # a job may be under it, which the next claim finds
    blocking.record_claim(claim_from("predict.churn", (1, 1)))
    assert blocking.offer([CHURN], next_name) is None
    clock.advance(seconds - 0.1)
    assert blocking.offer([CHURN], next_name) is None
    clock.advance(0.1)
    assert blocking.offer([CHURN], next_name) == blocking_lease(2)


@pytest.mark.parametrize(
    "replies",
    [
        pytest.param([None, b"1", 0, 0, (1, 0)], id="no job arrived"),
        pytest.param([b"job", b"1", 3, 0, (1, 0)], id="more jobs wait"),
        pytest.param([b"job", None, 0, 0, (1, 0)], id="the lease was ended"),
    ],
)
def test_a_claim_follows_a_wait_unless_one_job_arrived_alone(
    blocking: BlockingClaim, clock: FakeClock, next_name: Callable[[], str], replies: list[object]
) -> None:
    claim_twice(blocking)
    lease = blocking.offer([CHURN], next_name)
    assert lease is not None
    assert len(blocking.commands(lease)) == len(replies)
    blocking.record_nothing(parked=True, sent_at=clock())
    assert blocking.receive(replies) is None
    assert blocking.offer([CHURN], next_name) == lease


def test_a_job_that_arrived_alone_is_a_claim_under_the_parked_lease(
    blocking: BlockingClaim, clock: FakeClock, next_name: Callable[[], str]
) -> None:
    claim_twice(blocking)
    lease = blocking.offer([CHURN], next_name)
    assert lease is not None
    blocking.record_nothing(parked=True, sent_at=clock())
    clock.advance(0.1)
    claim = blocking.receive([b"job", b"1", 0, 1, (b"1700000000", b"500000")])
    assert claim == Claim(
        lease=lease,
        queued_messages=[b"job"],
        check_outcomes=True,
        claimed_ms=1_700_000_000_500,
        claimed_monotonic=clock(),
    )


def test_a_refusal_of_a_wait_under_a_lease_that_was_ended_is_no_refusal_of_waits(
    blocking: BlockingClaim, clock: FakeClock, next_name: Callable[[], str]
) -> None:
    claim_twice(blocking)
    blocking.offer([CHURN], next_name)
    blocking.record_nothing(parked=True, sent_at=clock())
    refusal = redis.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")
    assert blocking.receive([refusal, None, 1, 0, (0, 0)]) is None
    assert blocking.must_claim
    assert blocking.offer([CHURN], next_name) == blocking_lease(2)  # another, at once


def test_a_refusal_because_of_the_list_of_jobs_is_one(
    blocking: BlockingClaim, clock: FakeClock, next_name: Callable[[], str]
) -> None:
    claim_twice(blocking)
    lease = blocking.offer([CHURN], next_name)
    blocking.record_nothing(parked=True, sent_at=clock())
    refusal = redis.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")
    assert blocking.receive([refusal, 1.0, refusal, 0, (0, 0)]) is None
    blocking.record_nothing(parked=True, sent_at=clock())
    assert blocking.offer([CHURN], next_name) == lease
    assert blocking.parked_lease() is None
