"""The lease keeper: it renews leases, brings back the jobs of lost workers, and requeues orphaned claims."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator

import pytest
import redis

from headrace.results.letter_scripts import DeadLetterLimits
from headrace.wire.attempts import decode_queued_message
from headrace.wire.dead_letter import malformed_letter
from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.transport import lease_keeper, queue_sweeps
from headrace_worker.transport.claims import Claim, ClaimLimits, Lease
from headrace_worker.transport.lease_keeper import LeaseKeeper
from tests.support.waiting import wait_until

QUEUE = "predict.churn"
KEYS = Keys()


def make_keeper(url: str, lease_seconds: float = 1.0, limits: DeadLetterLimits | None = None) -> LeaseKeeper:
    return LeaseKeeper(
        lambda: redis.Redis.from_url(url), KEYS, lease_seconds=lease_seconds, limits=limits or DeadLetterLimits()
    )


@pytest.fixture
def keeper(redis_url: str) -> Iterator[LeaseKeeper]:
    keeper = make_keeper(redis_url)
    yield keeper
    keeper.close()


def claim(keeper: LeaseKeeper, server: redis.Redis, *messages: bytes) -> Claim:
    """Push messages and claim them, without holding the claim."""
    server.lpush(QUEUE, *messages)
    limits = [ClaimLimits(queue=QUEUE, jobs=9, bytes=9999)]
    result = keeper.commands.claim(keeper.next_name(), limits, lease_ms=keeper.lease_ms)
    assert isinstance(result, Claim)
    return result


def test_a_lease_is_renewed_while_it_is_held(keeper: LeaseKeeper, server: redis.Redis) -> None:
    keeper.watch([QUEUE])
    held, other = claim(keeper, server, b"a"), claim(keeper, server, b"b")
    keeper.hold(held)
    wait_until(lambda: server.lrange(KEYS.isolated(QUEUE), 0, -1), 5)
    assert server.zscore(KEYS.leases, held.lease.member)
    assert not server.zscore(KEYS.leases, other.lease.member)
    assert server.llen(KEYS.isolated(QUEUE)) == 1


def test_the_jobs_of_a_lost_worker_come_with_a_token_as_it_may_have_been_the_one_that_wakes_the_others(
    keeper: LeaseKeeper, server: redis.Redis
) -> None:
    claim(keeper, server, b"a")
    keeper.watch([QUEUE])
    assert server.blpop(KEYS.tokens(QUEUE), timeout=5)
    assert server.llen(KEYS.isolated(QUEUE)) == 1


def test_a_lease_of_a_lost_worker_is_ended_when_it_expires_and_not_a_second_later(
    keeper: LeaseKeeper, server: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_keeper, "_SWEEP_SECONDS", 3600.0)
    monkeypatch.setattr(keeper, "lease_ms", 300_000)
    lost = claim(keeper, server, b"a")
    server.zadd(KEYS.leases, {lost.lease.member: 1000 * time.time() + 700})
    keeper.watch([QUEUE])
    wait_until(lambda: server.llen(KEYS.isolated(QUEUE)) == 1, 10)


def test_jobs_in_foreign_lists_are_moved_and_a_notice_of_redis_moves_them_soon(
    keeper: LeaseKeeper, server: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_sweeps, "_GATHER_SECONDS", 3600)
    monkeypatch.setattr(queue_sweeps, "_GATHER_JOBS", 2)
    server.lpush(f"{QUEUE}:1", *range(5))
    keeper.watch([QUEUE])
    wait_until(lambda: server.llen(QUEUE) == 5, 5)
    server.lpush(f"{QUEUE}:1", "later")
    keeper.keys_changed([{b"predict.other:1"}, {QUEUE.encode()}])
    time.sleep(1.5)
    assert server.llen(QUEUE) == 5
    keeper.keys_changed([set(), {b"another", f"{QUEUE}:1".encode()}])
    wait_until(lambda: server.llen(QUEUE) == 6, 5)


def test_a_user_who_may_not_look_into_foreign_lists_keeps_its_leases(
    redis_url: str, server: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    lists = " ".join(f"~{name}" for name in KEYS.lists(QUEUE))
    server.execute_command(f"ACL SETUSER narrow on >pw ~headrace:* &* +@all {lists}")
    keeper = make_keeper(redis_url.replace("redis://", "redis://narrow:pw@"))
    try:
        keeper.watch([QUEUE])
        held = claim(keeper, server, b"a")
        keeper.hold(held)
        wait_until(lambda: "other priority_steps" in caplog.text, 5)
        keeper.keys_changed([{f"{QUEUE}:1".encode()}])
        time.sleep(2)
        assert server.zscore(KEYS.leases, held.lease.member)
        assert caplog.text.count("other priority_steps") == 1
    finally:
        keeper.close()
        server.execute_command("ACL DELUSER narrow")


def test_an_orphaned_claim_goes_back_without_an_attempt(keeper: LeaseKeeper, server: redis.Redis) -> None:
    keeper.watch([QUEUE])
    orphan = claim(keeper, server, b"a", b"b")
    keeper.adopt_orphan(orphan.lease.name)
    wait_until(lambda: server.lrange(QUEUE, 0, -1) == [b"b", b"a"], 5)
    assert not server.exists(KEYS.isolated(QUEUE))


def test_an_orphaned_claim_that_is_made_later_goes_back_too(keeper: LeaseKeeper, server: redis.Redis) -> None:
    keeper.watch([QUEUE])
    name = f"{keeper.owner}/later"
    keeper.adopt_orphan(name)
    time.sleep(0.4)  # the keeper has searched for it
    server.lpush(QUEUE, b"a")
    keeper.commands.claim(name, [ClaimLimits(queue=QUEUE)], lease_ms=60_000)
    wait_until(lambda: server.lrange(QUEUE, 0, -1) == [b"a"], 5)


def test_closing_puts_everything_back(redis_url: str, server: redis.Redis) -> None:
    keeper = make_keeper(redis_url)
    keeper.watch([QUEUE])
    keeper.hold(claim(keeper, server, b"a"))
    keeper.hold(claim(keeper, server, b"b"))
    assert keeper.close() == 2
    assert server.llen(QUEUE) == 2
    assert len(keeper) == 0


def test_a_claim_acknowledged_after_its_lease_ended_is_not_reported_as_lost(
    keeper: LeaseKeeper, server: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    keeper.watch([QUEUE])
    published = claim(keeper, server, b"a")
    keeper.hold(published)
    with caplog.at_level(logging.WARNING, "headrace.claims"):
        keeper._renew(keeper.commands)
        keeper.commands.publish(published.lease, {}, ttl=1)
        keeper._renew(keeper.commands)
        keeper.acknowledge(published.lease.name)
        keeper._renew(keeper.commands)
    assert "lost the lease" not in caplog.text


def test_a_forked_process_holds_no_leases_and_has_an_owner_of_its_own(
    keeper: LeaseKeeper, server: redis.Redis
) -> None:
    keeper.watch([QUEUE])
    keeper.hold(claim(keeper, server, b"a"))
    name, (reads, writes) = keeper.next_name(), os.pipe()
    child = os.fork()
    if child == 0:
        forked = keeper.next_name()
        os.write(writes, f"{forked} {len(keeper)} {forked.startswith(keeper.owner)}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    forked, held, is_parents = os.read(reads, 1000).decode().split()
    os.close(reads)
    os.close(writes)
    assert (held, is_parents) == ("0", "True")
    assert forked.rpartition("/")[0] != name.rpartition("/")[0]


def test_after_an_outage_of_redis_leases_are_renewed_before_any_counts_as_lost() -> None:
    with EmbeddedRedis() as embedded:
        keepers = [make_keeper(embedded.url) for _ in range(2)]
        try:
            with redis.Redis.from_url(embedded.url) as server:
                for keeper in keepers:
                    keeper.watch([QUEUE])
                    keeper.hold(claim(keeper, server, b"a"))
                embedded.kill()
                time.sleep(1.5)  # longer than a lease
                embedded.start()
                time.sleep(1.5)
                assert server.zcard(KEYS.leases) == 2
                assert not server.exists(KEYS.isolated(QUEUE))
        finally:
            for keeper in keepers:
                keeper.close()


@pytest.mark.parametrize("ended_by", ["requeue", "discard"])
def test_a_claim_is_requeued_without_an_attempt_when_redis_answers_again(ended_by: str) -> None:
    with EmbeddedRedis() as embedded, redis.Redis.from_url(embedded.url) as server:
        keeper = make_keeper(embedded.url)
        try:
            keeper.watch([QUEUE])
            held = claim(keeper, server, b"a", b"b")
            keeper.hold(held)
            embedded.kill()
            getattr(keeper, ended_by)(held.lease.name)
            assert len(keeper) == 0
            time.sleep(1.5)  # longer than the lease
            embedded.start()
            wait_until(lambda: server.lrange(QUEUE, 0, -1) == [b"b", b"a"], 10)
            assert not server.exists(KEYS.isolated(QUEUE), KEYS.leases)
        finally:
            keeper.close()


def test_after_a_restart_of_redis_a_new_keeper_waits_for_one_lease_before_it_sweeps() -> None:
    with EmbeddedRedis() as embedded, redis.Redis.from_url(embedded.url) as server:
        before, after = (make_keeper(embedded.url, lease_seconds=4.0) for _ in range(2))
        try:
            lost = claim(before, server, b"a")
            server.zadd(KEYS.leases, {lost.lease.member: 1})
            embedded.kill()
            embedded.start()
            started = time.monotonic()
            after.watch([QUEUE])
            wait_until(lambda: server.exists(KEYS.isolated(QUEUE)))
            assert time.monotonic() - started > 2.5  # Redis tells whole seconds of its 4
        finally:
            before.close()
            after.close()


def test_expired_leases_are_swept_if_redis_does_not_tell_its_uptime(
    keeper: LeaseKeeper, server: redis.Redis
) -> None:
    server.execute_command("ACL", "SETUSER", "default", "-info")
    try:
        keeper.watch([QUEUE])
        lost = claim(keeper, server, b"a")
        server.zadd(KEYS.leases, {lost.lease.member: 1})
        wait_until(lambda: server.exists(KEYS.isolated(QUEUE)), 5)
    finally:
        server.execute_command("ACL", "SETUSER", "default", "+info")


def test_the_attempt_of_an_expired_lease_has_the_owner_and_the_size_of_the_claim(
    keeper: LeaseKeeper, server: redis.Redis
) -> None:
    lost = claim(keeper, server, b"a", b"b")
    server.zadd(KEYS.leases, {lost.lease.member: 1})
    keeper.watch([QUEUE])
    queued_messages = wait_until(lambda: server.lrange(KEYS.isolated(QUEUE), 0, -1), 5)
    for queued_message in queued_messages:
        [attempt], _ = decode_queued_message(queued_message)
        assert (attempt.cause, attempt.owner, attempt.claim_size) == ("lease_expired", keeper.owner, 2)


def test_dead_letters_that_are_too_old_are_dropped(redis_url: str, server: redis.Redis) -> None:
    keeper = make_keeper(redis_url, limits=DeadLetterLimits(max_count=10, max_age_seconds=60))
    try:
        old = malformed_letter(b"\xff", ValueError(), queue=QUEUE, worker="w@host")
        keeper.commands.store_dead_letter(old, b"\xff", None)
        server.zadd(KEYS.dead_share(QUEUE, malformed=True), {old.id: (time.time() - 61) * 1000})
        keeper.watch([QUEUE])
        wait_until(lambda: not server.exists(KEYS.dead, KEYS.dead_messages, KEYS.dead_times), 5)
        assert server.get(KEYS.dead_dropped) == b"1"
    finally:
        keeper.close()


def test_a_keeper_reconnects_when_its_server_is_no_longer_a_primary(redis_url: str, server: redis.Redis) -> None:
    keeper = make_keeper(f"{redis_url}?client_name=keeper")
    try:
        keeper.watch([QUEUE])
        keeper.hold(claim(keeper, server, b"a"))
        before = _connections(server, "keeper")
        assert before
        server.replicaof("127.0.0.1", "1")
        wait_until(lambda: not before & _connections(server, "keeper"), 5)
        server.replicaof("NO", "ONE")
        wait_until(lambda: server.zscore(KEYS.leases, _only_lease(server)) / 1000 > time.time() + 0.5, 5)
    finally:
        server.replicaof("NO", "ONE")
        keeper.close()


def _connections(server: redis.Redis, name: str) -> set[str]:
    return {connection["id"] for connection in server.client_list() if connection["name"] == name}


def _only_lease(server: redis.Redis) -> bytes:
    [member] = server.zrange(KEYS.leases, 0, -1)
    return bytes(member)


def test_one_key_of_another_type_stops_no_other_queue_and_no_other_lease(
    redis_url: str, server: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    other = "predict.other"
    for queue in (QUEUE, other):
        lease = Lease(name=f"gone/{queue}", queue=queue, origins=((1, 1),))
        server.zadd(KEYS.leases, {lease.member: 1})
        server.rpush(KEYS.lease(lease.name), b"a")
        server.zadd(KEYS.delayed(queue), {b"1b": 1})
    server.zadd(KEYS.leases, {b"\xff no lease %d" % number: 0 for number in range(250)})
    server.set(KEYS.isolated(QUEUE), "not ours")
    server.set(KEYS.dead_times, "not ours")
    keeper = make_keeper(redis_url)
    keeper.watch([QUEUE, other])
    try:
        wait_until(lambda: server.llen(KEYS.isolated(other)) == 1 and server.llen(other) == 1, 10)
        time.sleep(2.5)  # two sweeps more
        errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        assert sum("expired lease of predict.churn" in error for error in errors) == 1
        assert sum("delayed jobs of predict.churn" in error for error in errors) == 1
        assert all("(key headrace:isolated:predict.churn)" in error for error in errors if QUEUE in error[:80])
        server.delete(KEYS.isolated(QUEUE))
        wait_until(lambda: server.llen(KEYS.isolated(QUEUE)) == 1 and server.llen(QUEUE) == 1, 10)
    finally:
        keeper.close()
        server.delete(KEYS.dead_times)


def test_a_keeper_of_the_queues_pauses_between_its_tries_while_redis_is_away() -> None:
    rounds: list[BaseException | None] = []
    with EmbeddedRedis("--appendfsync", "no") as embedded:
        keeper = make_keeper(embedded.url, lease_seconds=10)
        keeper.watch([QUEUE])
        try:
            wait_until(lambda: keeper.keeps_queues, 10)
            embedded.kill()
            keeper.on_round_ended = rounds.append
            time.sleep(3)
            # One retry at once, then a round for each look.
            assert 2 <= len([error for error in rounds if error]) <= 10
        finally:
            keeper.close()
