"""Jobs in the lists of kombu clients with other `priority_steps` or `sep` come to the lists that are claimed."""

from __future__ import annotations

import pytest
import redis

from headrace.wire.keys import Keys
from headrace_worker.transport.leases import Leases
from tests.support.lease_operations import QUEUE, claim_jobs


def test_jobs_keep_their_order_and_go_to_the_step_below_their_priority(
    db: redis.Redis, keys: Keys, leases: Leases
) -> None:
    for name, target in keys.foreign_lists(QUEUE):
        db.delete(target)
        db.lpush(target, "waiting")
        db.lpush(name, "1", "2", "3")
        assert leases.find_foreign(["predict.other", QUEUE]) == [QUEUE]
        assert leases.gather(QUEUE, 100) == 3
        assert db.lrange(target, 0, -1) == [b"3", b"2", b"1", b"waiting"]
        assert not db.exists(name)
    assert leases.find_foreign([QUEUE]) == []


def test_no_more_than_the_limit_is_moved_at_once(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    (first, target), (second, _), *_ = keys.foreign_lists(QUEUE)
    db.lpush(first, *range(7))
    db.lpush(second, *range(7))
    assert [leases.gather(QUEUE, 5) for _ in range(4)] == [5, 5, 4, 0]
    assert db.llen(target) == 14


@pytest.mark.parametrize("wrong", [0, 1])
def test_a_key_of_another_type_leaves_everything_in_its_list(
    db: redis.Redis, keys: Keys, leases: Leases, wrong: int
) -> None:
    pair, (other, other_target) = keys.foreign_lists(QUEUE)[0], keys.foreign_lists(QUEUE)[-1]
    db.lpush(pair[1 - wrong], "job")
    db.set(pair[wrong], "in the way")
    db.lpush(other, "another")
    assert leases.gather(QUEUE, 100) == 1
    assert db.lrange(other_target, 0, -1) == [b"another"]
    assert db.lrange(pair[1 - wrong], 0, -1) == [b"job"]
    assert db.get(pair[wrong]) == b"in the way"


def test_gathered_jobs_are_claimed(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    db.lpush(keys.foreign_lists(QUEUE)[0][0], "foreign")
    assert leases.gather(QUEUE, 100) == 1
    assert list(claim_jobs(leases).queued_messages) == [b"foreign"]
