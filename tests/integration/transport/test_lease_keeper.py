"""The keeper: renews what this process holds, brings back what others lost, gives back what reached nobody."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator

import pytest
import redis

from headrace.wire.attempts import decode_queued_message
from headrace.wire.dead_letter import malformed_letter
from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.transport.claims import Claim, ClaimLimits
from headrace_worker.transport.lease_keeper import LeaseKeeper
from headrace_worker.transport.publish_script import DeadLetterLimits
from tests.support.waiting import wait_until

QUEUE = "predict.churn"
KEYS = Keys()


def keeper_on(url: str, lasts: float = 1.0, bounds: DeadLetterLimits | None = None) -> LeaseKeeper:
    return LeaseKeeper(
        lambda: redis.Redis.from_url(url), KEYS, lease_seconds=lasts, limits=bounds or DeadLetterLimits()
    )


@pytest.fixture
def keeper(redis_url: str) -> Iterator[LeaseKeeper]:
    keeper = keeper_on(redis_url)
    yield keeper
    keeper.close()


def claim(keeper: LeaseKeeper, server: redis.Redis, *frames: bytes, queue: str = QUEUE) -> Claim:
    server.lpush(queue, *frames)
    got = keeper.commands.claim(
        keeper.next_name(), [ClaimLimits(queue=queue, jobs=9, bytes=9999)], lease_ms=keeper.lease_ms
    )
    assert isinstance(got, Claim)
    return got


def test_a_lease_held_is_renewed_and_one_let_go_is_not(keeper: LeaseKeeper, server: redis.Redis) -> None:
    keeper.watch([QUEUE])
    held, other = claim(keeper, server, b"a"), claim(keeper, server, b"b")
    keeper.hold(held)
    wait_until(lambda: server.lrange(KEYS.isolated(QUEUE), 0, -1), 5)
    assert server.zscore(KEYS.leases, held.lease.member)
    assert not server.zscore(KEYS.leases, other.lease.member)
    assert server.llen(KEYS.isolated(QUEUE)) == 1


def test_a_claim_that_reached_nobody_goes_back_uncounted(keeper: LeaseKeeper, server: redis.Redis) -> None:
    keeper.watch([QUEUE])
    lost = claim(keeper, server, b"a", b"b")
    keeper.adopt_orphan(lost.lease.name)
    wait_until(lambda: server.lrange(QUEUE, 0, -1) == [b"b", b"a"], 5)
    assert not server.exists(KEYS.isolated(QUEUE))


def test_a_lost_reply_that_comes_to_light_only_later_goes_back_too(
    keeper: LeaseKeeper, server: redis.Redis
) -> None:
    keeper.watch([QUEUE])
    name = f"{keeper.owner}/late"
    keeper.adopt_orphan(name)
    time.sleep(0.4)  # the keeper has looked, and found nothing
    server.lpush(QUEUE, b"a")
    keeper.commands.claim(name, [ClaimLimits(queue=QUEUE)], lease_ms=60_000)
    wait_until(lambda: server.lrange(QUEUE, 0, -1) == [b"a"], 5)


def test_closing_puts_everything_back(redis_url: str, server: redis.Redis) -> None:
    keeper = keeper_on(redis_url)
    keeper.watch([QUEUE])
    keeper.hold(claim(keeper, server, b"a"))
    keeper.hold(claim(keeper, server, b"b"))
    assert keeper.close() == 2
    assert server.llen(QUEUE) == 2
    assert len(keeper) == 0


def test_a_claim_being_acknowledged_late_raises_no_alarm(
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


def test_a_process_forked_later_holds_nothing_and_names_its_own(keeper: LeaseKeeper, server: redis.Redis) -> None:
    keeper.watch([QUEUE])
    keeper.hold(claim(keeper, server, b"a"))
    name, (reads, writes) = keeper.next_name(), os.pipe()
    child = os.fork()
    if child == 0:
        forked = keeper.next_name()
        os.write(writes, f"{forked} {len(keeper)} {forked.startswith(keeper.owner)}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    forked, held, own = os.read(reads, 1000).decode().split()
    os.close(reads)
    os.close(writes)
    assert (held, own) == ("0", "True")
    assert forked.rpartition("/")[0] != name.rpartition("/")[0]


def test_after_redis_was_away_the_living_renew_before_anything_counts_as_lost() -> None:
    with EmbeddedRedis() as own:
        one, two = keeper_on(own.url), keeper_on(own.url)
        try:
            with redis.Redis.from_url(own.url) as server:
                for keeper in (one, two):
                    keeper.watch([QUEUE])
                    keeper.hold(claim(keeper, server, b"a"))
                own.kill()
                time.sleep(1.5)  # longer than a lease
                own.start()
                time.sleep(1.5)
                assert server.zcard(KEYS.leases) == 2
                assert not server.exists(KEYS.isolated(QUEUE))
        finally:
            one.close()
            two.close()


@pytest.mark.parametrize("stopped", ["released", "discarded"])
def test_a_claim_that_cannot_be_put_back_now_is_put_back_uncounted_when_redis_answers(stopped: str) -> None:
    with EmbeddedRedis() as own, redis.Redis.from_url(own.url) as server:
        keeper = keeper_on(own.url)
        try:
            keeper.watch([QUEUE])
            held = claim(keeper, server, b"a", b"b")
            keeper.hold(held)
            own.kill()
            (keeper.requeue if stopped == "released" else keeper.discard)(held.lease.name)
            assert len(keeper) == 0
            time.sleep(1.5)  # longer than the lease
            own.start()
            wait_until(lambda: server.lrange(QUEUE, 0, -1) == [b"b", b"a"], 10)
            assert not server.exists(KEYS.isolated(QUEUE), KEYS.leases)
        finally:
            keeper.close()


def test_a_keeper_that_comes_after_a_restart_of_redis_lets_a_lease_pass_before_it_takes_one_for_lost() -> None:
    with EmbeddedRedis() as own, redis.Redis.from_url(own.url) as server:
        before, after = keeper_on(own.url, lasts=4.0), keeper_on(own.url, lasts=4.0)
        try:
            lost = claim(before, server, b"a")
            server.zadd(KEYS.leases, {lost.lease.member: 1})
            own.kill()
            own.start()
            began = time.monotonic()
            after.watch([QUEUE])
            wait_until(lambda: server.exists(KEYS.isolated(QUEUE)), 10)
            assert time.monotonic() - began > 2.5
            assert time.monotonic() - began < 4 + 2
        finally:
            before.close()
            after.close()


def test_where_redis_does_not_say_how_long_it_runs_lost_leases_are_swept_all_the_same(
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


def test_a_lapse_tells_whose_claim_it_was_and_how_many_ran(keeper: LeaseKeeper, server: redis.Redis) -> None:
    lost = claim(keeper, server, b"a", b"b")
    server.zadd(KEYS.leases, {lost.lease.member: 1})
    keeper.watch([QUEUE])
    frames = wait_until(lambda: server.lrange(KEYS.isolated(QUEUE), 0, -1), 5)
    for frame in frames:
        [attempt], _ = decode_queued_message(frame)
        assert (attempt.cause, attempt.owner, attempt.claim_size) == ("lease_expired", keeper.owner, 2)


def test_dead_letters_that_are_too_old_are_dropped(redis_url: str, server: redis.Redis) -> None:
    keeper = keeper_on(redis_url, bounds=DeadLetterLimits(max_count=10, max_age_seconds=60))
    try:
        old = malformed_letter(b"\xff", ValueError(), queue=QUEUE, worker="w@host")
        keeper.commands.store_dead_letter(old, b"\xff", None)
        server.zadd(KEYS.dead_times, {old.id: (time.time() - 61) * 1000})
        keeper.watch([QUEUE])
        wait_until(lambda: not server.exists(KEYS.dead, KEYS.dead_messages, KEYS.dead_times), 5)
        assert server.get(KEYS.dead_dropped) == b"1"
    finally:
        keeper.close()


def test_a_keeper_leaves_a_primary_that_is_none_any_more(redis_url: str, server: redis.Redis) -> None:
    keeper = keeper_on(f"{redis_url}?client_name=keeper")
    try:
        keeper.watch([QUEUE])
        keeper.hold(claim(keeper, server, b"a"))
        before = _connections(server, "keeper")
        assert before
        server.replicaof("127.0.0.1", "1")
        wait_until(lambda: not before & _connections(server, "keeper"), 5)
        server.replicaof("NO", "ONE")
        wait_until(lambda: server.zscore(KEYS.leases, _only(server)) / 1000 > time.time() + 0.5, 5)
    finally:
        server.replicaof("NO", "ONE")
        keeper.close()


def _connections(server: redis.Redis, name: str) -> set[str]:
    return {one["id"] for one in server.client_list() if one["name"] == name}


def _only(server: redis.Redis) -> bytes:
    [member] = server.zrange(KEYS.leases, 0, -1)
    return bytes(member)
