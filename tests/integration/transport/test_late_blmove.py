"""The bytes of a BLMOVE that reach Redis after its lease was ended move no job: nobody would find it there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from headrace.wire.keys import Keys
from headrace_worker.transport.claims import Lease
from headrace_worker.transport.leases import Leases
from tests.support.lease_operations import QUEUE, claim_jobs, expire_leases, finds_nothing, park_lease, push


def end_by_its_owner(db: redis.Redis, keys: Keys, leases: Leases, lease: Lease) -> None:
    """End a parked lease as the owner does that gave up its connection."""
    leases.requeue(lease)


def end_by_a_sweep(db: redis.Redis, keys: Keys, leases: Leases, lease: Lease) -> None:
    """End a parked lease as the keeper of the queues does, in two sweeps."""
    for _ in range(2):
        expire_leases(db, keys)
        leases.requeue_isolated(lease, "lease_expired", owner="me", only_if_expired=True)


@pytest.mark.parametrize("end", [end_by_its_owner, end_by_a_sweep])
def test_a_late_blmove_is_refused_and_the_job_stays_in_its_list(
    db: redis.Redis, keys: Keys, leases: Leases, end: Callable[[redis.Redis, Keys, Leases, Lease], None]
) -> None:
    lease = park_lease(leases)
    end(db, keys, leases, lease)
    assert not db.exists(keys.leases)
    push(db, keys, b"job")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        db.blmove(keys.sources(QUEUE)[1], keys.lease(lease.name), 1, "RIGHT", "LEFT")
    assert claim_jobs(leases).queued_messages == [b"job"]


def test_a_blmove_that_waits_is_refused_when_a_job_comes(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    lease = park_lease(leases)
    with db.client() as waiting:
        connection = waiting.connection
        source, destination = keys.sources(QUEUE)[1], keys.lease(lease.name)
        connection.send_command("BLMOVE", source, destination, "RIGHT", "LEFT", 30)
        end_by_its_owner(db, keys, leases, lease)
        push(db, keys, b"job")
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            connection.read_response()
    assert claim_jobs(leases).queued_messages == [b"job"]


def test_its_owner_may_park_the_lease_again(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    lease = park_lease(leases)
    end_by_a_sweep(db, keys, leases, lease)
    assert park_lease(leases) == lease
    assert not db.exists(keys.lease(lease.name))
    push(db, keys, b"job")
    assert claim_jobs(leases, parked=lease).queued_messages == [b"job"]


def test_the_owner_of_a_lease_that_was_ended_claims_what_waits(
    db: redis.Redis, keys: Keys, leases: Leases
) -> None:
    lease = park_lease(leases)
    end_by_a_sweep(db, keys, leases, lease)
    push(db, keys, b"job")
    assert claim_jobs(leases, parked=lease).queued_messages == [b"job"]
    assert finds_nothing(leases)


def test_the_fence_is_forgotten_in_an_hour(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    lease = park_lease(leases)
    leases.requeue(lease)
    assert 3500 < db.ttl(keys.lease(lease.name)) <= 3600


def test_a_lease_that_holds_a_job_leaves_no_fence(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    lease = park_lease(leases)
    push(db, keys, b"job")
    db.blmove(keys.sources(QUEUE)[1], keys.lease(lease.name), 1, "RIGHT", "LEFT")
    assert leases.requeue(lease) == 1
    assert not db.exists(keys.lease(lease.name))
