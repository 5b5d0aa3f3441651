"""CLAIM: which messages a claim takes, and in which order."""

from __future__ import annotations

import pytest
import redis

from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.transport.claims import Claim, ClaimLimits, Lease, NothingClaimed
from headrace_worker.transport.leases import Leases
from tests.support.lease_operations import LEASE_MS, QUEUE, claim_jobs, finds_nothing, push
from tests.support.waiting import wait_until


def test_messages_are_claimed_byte_for_byte(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    messages = [b"{}", b"\x00\x01\xff\n\r\n", b"\x01", b"\x01\n", b"$-1\r\n", b" ", bytes(range(256)) * 4]
    push(db, keys, *messages)
    claim = claim_jobs(leases)
    assert list(claim.queued_messages) == messages
    assert db.lrange(keys.lease("me/1"), 0, -1) == messages


def test_an_empty_message_is_claimed_like_any_other(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, b"", b"a", b"")
    assert list(claim_jobs(leases).queued_messages) == [b"", b"a", b""]


def test_the_lowest_priority_number_goes_first_in_order_of_submission(
    db: redis.Redis, keys: Keys, leases: Leases
) -> None:
    for priority in (9, 3, 0, 6):
        push(db, keys, *(b"%d-%d" % (priority, n) for n in range(2)), priority=priority)
    claim = claim_jobs(leases)
    assert list(claim.queued_messages) == [b"0-0", b"0-1", b"3-0", b"3-1", b"6-0", b"6-1"]
    assert claim.lease.origins == ((1, 2), (2, 2), (3, 2))
    claim = claim_jobs(leases, "me/2")
    assert list(claim.queued_messages) == [b"9-0", b"9-1"]
    assert claim.lease.origins == ((4, 2),)


@pytest.mark.parametrize("source", range(9))
def test_a_claim_tells_whether_it_left_a_job_in_any_list(
    db: redis.Redis, keys: Keys, leases: Leases, source: int
) -> None:
    push(db, keys, b"a")
    assert claim_jobs(leases, jobs=1).is_queue_empty
    push(db, keys, b"b")
    db.lpush(keys.sources(QUEUE)[source], b"c")
    first = claim_jobs(leases, "me/2", jobs=1)
    assert (len(first.queued_messages), first.is_queue_empty) == (1, False)
    assert claim_jobs(leases, "me/3").is_queue_empty
    assert finds_nothing(leases)


@pytest.mark.parametrize("lowest_first", [False, True])
@pytest.mark.parametrize("retried_first", [False, True])
def test_jobs_of_files_share_no_claim_with_jobs_of_a_higher_priority(
    db: redis.Redis, keys: Keys, leases: Leases, lowest_first: bool, retried_first: bool
) -> None:
    for index, step in enumerate((0, 3, 6, 9)):
        db.lpush(keys.lists(QUEUE)[index], b"%d" % step)
        db.lpush(keys.retried(QUEUE)[index], b"%d" % step)
    claims = [
        claim_jobs(leases, f"me/{number}", lowest_first=lowest_first, retried_first=retried_first)
        for number in range(2)
    ]
    messages = [set(claim.queued_messages) for claim in claims]
    assert messages == ([{b"9"}, {b"0", b"3", b"6"}] if lowest_first else [{b"0", b"3", b"6"}, {b"9"}])
    assert [len(claim.queued_messages) for claim in claims] == ([2, 6] if lowest_first else [6, 2])
    assert finds_nothing(leases)


def test_a_job_that_arrived_under_a_parked_lease_is_not_joined_by_jobs_of_files(
    db: redis.Redis, keys: Keys, leases: Leases
) -> None:
    for source, joined in ((1, [b"online"]), (4, [b"file"])):
        name = f"parked/{source}"
        parked = Lease(name=name, queue=QUEUE, origins=((source, 1),), blocking=True)
        db.zadd(keys.leases, {parked.member: 10**15})
        db.lpush(keys.lease(name), b"arrived")
        push(db, keys, b"online")
        push(db, keys, b"file", priority=9)
        limits = [ClaimLimits(queue=QUEUE, jobs=9, bytes=1 << 20)]
        claim = leases.claim(f"me/{source}", limits, lease_ms=LEASE_MS, parked=parked)
        assert isinstance(claim, Claim)
        assert list(claim.queued_messages) == [b"arrived", *joined]
        db.delete(*keys.lists(QUEUE))


def test_a_claim_can_start_with_the_lowest_priority(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, b"urgent")
    push(db, keys, b"file", priority=9)
    assert list(claim_jobs(leases, jobs=1, lowest_first=True).queued_messages) == [b"file"]


def test_the_first_queue_goes_first(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, b"a", queue="predict.a")
    push(db, keys, b"b", queue="predict.b")
    claim = leases.claim(
        "me/1", [ClaimLimits(queue="predict.b"), ClaimLimits(queue="predict.a")], lease_ms=LEASE_MS
    )
    assert isinstance(claim, Claim)
    assert (claim.lease.queue, list(claim.queued_messages)) == ("predict.b", [b"b"])


def test_an_urgent_job_of_the_second_queue_goes_before_a_less_urgent_job_of_the_first(
    db: redis.Redis, keys: Keys, leases: Leases
) -> None:
    push(db, keys, b"a", queue="predict.a", priority=9)
    push(db, keys, b"b", queue="predict.b")
    claim = leases.claim(
        "me/1", [ClaimLimits(queue="predict.a"), ClaimLimits(queue="predict.b")], lease_ms=LEASE_MS
    )
    assert isinstance(claim, Claim)
    assert list(claim.queued_messages) == [b"b"]


def test_no_more_jobs_are_claimed_than_the_limit(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    messages = [b"%d" % n for n in range(3500)]
    push(db, keys, *messages)
    claim = claim_jobs(leases, jobs=3000)
    assert list(claim.queued_messages) == messages[:3000]
    assert db.llen(keys.lease("me/1")) == 3000
    assert leases.requeue(claim.lease) == 3000
    assert db.lrange(keys.lists(QUEUE)[0], 0, -1) == messages[::-1]


def test_bytes_limit_a_claim_but_one_job_is_always_claimed(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, *[b"x" * 1000] * 10)
    claim = leases.claim("me/1", [ClaimLimits(queue=QUEUE, jobs=100, bytes=2500)], lease_ms=LEASE_MS)
    assert isinstance(claim, Claim)
    assert len(claim.queued_messages) == 3
    claim = leases.claim("me/2", [ClaimLimits(queue=QUEUE, jobs=100, bytes=1)], lease_ms=LEASE_MS)
    assert isinstance(claim, Claim)
    assert len(claim.queued_messages) == 1


def test_a_claim_writes_no_message_into_the_append_only_file_again(
    db: redis.Redis, keys: Keys, leases: Leases
) -> None:
    if db.info("server")["redis_version"].startswith("6."):
        pytest.skip("Redis 6.2 pops the messages, and writes them again")
    db.config_set("appendonly", "yes")
    try:
        wait_until(lambda: db.info("persistence")["aof_rewrite_in_progress"] == 0)
        messages = [b"%06d" % n * 1000 for n in range(100)]
        push(db, keys, *messages)
        before = db.info("persistence")["aof_current_size"]
        assert list(claim_jobs(leases, jobs=100).queued_messages) == messages
        assert db.info("persistence")["aof_current_size"] - before < 1000
    finally:
        db.config_set("appendonly", "no")


@pytest.mark.parametrize("command", ["sort", "ltrim"])
def test_a_user_who_may_not_move_messages_claims_by_popping(
    db: redis.Redis, keys: Keys, any_redis: EmbeddedRedis, command: str
) -> None:
    db.execute_command("ACL", "SETUSER", "unsorted", "on", "nopass", "~*", "&*", "+@all", f"-{command}")
    with redis.Redis.from_url(any_redis.url, username="unsorted", password="any") as client:
        push(db, keys, b"a", b"b")
        push(db, keys, b"c", priority=9)
        push(db, keys, b"d", priority=6)
        claim = claim_jobs(Leases(client, keys))
        assert list(claim.queued_messages) == [b"a", b"b", b"d"]
        assert db.lrange(keys.lease("me/1"), 0, -1) == [b"a", b"b", b"d"]
        assert [db.llen(name) for name in keys.lists(QUEUE)] == [0, 0, 0, 1]
    db.execute_command("ACL", "DELUSER", "unsorted")


def test_a_full_redis_lets_jobs_be_claimed(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, *[b"x" * 1000] * 100)
    db.config_set("maxmemory", 1)
    try:
        assert len(claim_jobs(leases, jobs=100).queued_messages) == 100
        assert db.llen(keys.lease("me/1")) == 100
    finally:
        db.config_set("maxmemory", 0)


def test_a_queue_that_fills_is_skipped_until_it_is_full(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    limits = [ClaimLimits(queue=QUEUE, jobs=3, bytes=1 << 20, full_only=True), ClaimLimits(queue="predict.other")]
    assert leases.claim("me/1", limits, lease_ms=LEASE_MS) == NothingClaimed(())
    push(db, keys, b"1")
    push(db, keys, b"2", priority=9)
    assert leases.claim("me/2", limits, lease_ms=LEASE_MS) == NothingClaimed((QUEUE,))
    push(db, keys, b"other", queue="predict.other")
    claim = leases.claim("me/3", limits, lease_ms=LEASE_MS)
    assert isinstance(claim, Claim)
    assert claim.lease.queue == "predict.other"
    push(db, keys, b"3")
    claim = leases.claim("me/4", limits, lease_ms=LEASE_MS)
    assert isinstance(claim, Claim)
    assert list(claim.queued_messages) == [b"1", b"3"]


def test_a_claim_without_a_lease_leaves_no_key(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, b"a", queue="ordinary")
    claim = leases.claim("me/1", [ClaimLimits(queue="ordinary", leased=False)], lease_ms=LEASE_MS)
    assert isinstance(claim, Claim)
    assert list(db.scan_iter()) == []


def test_an_empty_claim_leaves_no_key(db: redis.Redis, leases: Leases) -> None:
    assert finds_nothing(leases)
    assert list(db.scan_iter()) == []


def test_a_claim_knows_whether_a_job_was_cancelled_lately(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, b"a", b"b")
    assert not claim_jobs(leases, jobs=1).check_outcomes
    db.set(keys.cancelled, 1)
    assert claim_jobs(leases, "me/2").check_outcomes


def test_a_key_of_another_type_ends_no_claim_that_has_popped(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, b"a")
    db.set(keys.lists(QUEUE)[2], "in the way")
    assert list(claim_jobs(leases).queued_messages) == [b"a"]
    assert db.lrange(keys.lease("me/1"), 0, -1) == [b"a"]


def test_nothing_is_popped_if_the_lease_cannot_be_recorded(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, b"a")
    db.set(keys.leases, "in the way")
    with pytest.raises(redis.ResponseError):
        claim_jobs(leases)
    assert db.llen(keys.lists(QUEUE)[0]) == 1


@pytest.mark.parametrize("index", range(9))
def test_a_list_of_another_type_stops_no_other_list_and_is_named_if_nothing_is_claimed(
    db: redis.Redis, keys: Keys, leases: Leases, index: int
) -> None:
    wrong = keys.sources(QUEUE)[index]
    db.set(wrong, "in the way")
    db.lpush(keys.lists("predict.other")[3], b"other")
    limits = [ClaimLimits(queue=QUEUE, jobs=9), ClaimLimits(queue="predict.other", jobs=9)]
    claim = leases.claim("me/1", limits, lease_ms=LEASE_MS)
    assert isinstance(claim, Claim)
    assert list(claim.queued_messages) == [b"other"]
    before = {*db.scan_iter()}
    with pytest.raises(redis.ResponseError, match="WRONGTYPE") as refusal:
        leases.claim("me/2", limits, lease_ms=LEASE_MS)
    assert f"(key {wrong})" in str(refusal.value)
    assert {*db.scan_iter()} == before


# --- jobs that run again ---


def test_retried_jobs_keep_their_priority_and_go_first_or_last_of_it(
    db: redis.Redis, keys: Keys, leases: Leases
) -> None:
    def fill() -> None:
        for index, step in enumerate((0, 3, 6, 9)):
            db.lpush(keys.lists(QUEUE)[index], b"%d" % step)
            db.lpush(keys.retried(QUEUE)[index], b"again-%d" % step)

    fill()
    claim = claim_jobs(leases)
    assert b" ".join(claim.queued_messages) == b"again-0 0 again-3 3 again-6 6"
    assert claim.lease.origins == ((5, 1), (1, 1), (6, 1), (2, 1), (7, 1), (3, 1))
    assert b" ".join(claim_jobs(leases, "me/2").queued_messages) == b"again-9 9"
    fill()
    claim = claim_jobs(leases, "me/3", retried_first=False, lowest_first=True)
    assert b" ".join(claim.queued_messages) == b"9 again-9"
    claim = claim_jobs(leases, "me/4", retried_first=False, lowest_first=True)
    assert b" ".join(claim.queued_messages) == b"6 again-6 3 again-3 0 again-0"


def test_an_isolated_job_is_claimed_when_it_is_its_turn(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    db.lpush(keys.isolated(QUEUE), b"1", b"2", b"3")
    push(db, keys, b"a", b"b")
    assert list(claim_jobs(leases, "me/1", jobs=1, isolated="last").queued_messages) == [b"a"]
    assert list(claim_jobs(leases, "me/2", isolated="first").queued_messages) == [b"1"]
    assert list(claim_jobs(leases, "me/3", isolated="never").queued_messages) == [b"b"]
    assert list(claim_jobs(leases, "me/4", isolated="last").queued_messages) == [b"2"]
    limits = [ClaimLimits(queue=QUEUE, jobs=9)]
    assert isinstance(leases.claim("me/5", limits, lease_ms=LEASE_MS, isolated="never"), NothingClaimed)
    assert db.lrange(keys.isolated(QUEUE), 0, -1) == [b"3"]


def test_retried_jobs_fill_a_batch_and_count_as_waiting_for_it(
    db: redis.Redis, keys: Keys, leases: Leases
) -> None:
    limits = [ClaimLimits(queue=QUEUE, jobs=2, bytes=1000, full_only=True)]
    db.lpush(keys.retried(QUEUE)[0], b"again")
    assert leases.claim("me/1", limits, lease_ms=LEASE_MS) == NothingClaimed((QUEUE,))
    push(db, keys, b"a")
    claim = leases.claim("me/2", limits, lease_ms=LEASE_MS)
    assert isinstance(claim, Claim)
    assert list(claim.queued_messages) == [b"again", b"a"]


def test_a_deep_queue_costs_a_claim_no_more_than_a_shallow_one(
    db: redis.Redis, keys: Keys, leases: Leases
) -> None:
    def take_microseconds(depth: int) -> float:
        for _ in range(depth // 1000):
            push(db, keys, *[b"x" * 100] * 1000)
        limits = [ClaimLimits(queue=QUEUE, jobs=16, bytes=100_000)]
        before = read_cpu_seconds(db)
        for number in range(20):
            claim = leases.claim(f"me/{depth}/{number}", limits, lease_ms=LEASE_MS)
            assert isinstance(claim, Claim)
            assert len(claim.queued_messages) == 16
        return 1e6 * (read_cpu_seconds(db) - before) / 20

    db.config_set("list-max-ziplist-size", 1)  # as with messages of some KB: a node of the list holds one
    try:
        shallow = max(take_microseconds(1000), 25)
        assert take_microseconds(200_000) < 8 * shallow
    finally:
        db.config_set("list-max-ziplist-size", -2)


def read_cpu_seconds(db: redis.Redis) -> float:
    info = db.info("cpu")
    return float(info["used_cpu_user"] + info["used_cpu_sys"])
