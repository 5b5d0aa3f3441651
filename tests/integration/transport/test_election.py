"""One worker keeps the queues for all, and another one takes over when it ends or is lost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import redis

from headrace.results.letter_scripts import DeadLetterLimits
from headrace.wire.keys import Keys
from headrace_worker.transport.lease_keeper import LeaseKeeper
from tests.support.waiting import wait_until

QUEUES = [f"predict.m{number}" for number in range(8)]
KEYS = Keys("election-test:")


@contextmanager
def keeping(url: str, *queues: str, workers: int = 2) -> Iterator[LeaseKeeper]:
    """Run the lease keeper of one of several workers."""
    keeper = LeaseKeeper(lambda: redis.Redis.from_url(url), KEYS, lease_seconds=10, limits=DeadLetterLimits())
    keeper.count_workers = lambda: workers
    keeper.watch(queues)
    try:
        yield keeper
    finally:
        keeper.close()


def test_of_eight_workers_one_keeps_the_queues_and_the_others_ask_redis_once_a_second(
    redis_url: str, server: redis.Redis
) -> None:
    with ExitStack() as stack:
        keepers = [stack.enter_context(keeping(redis_url, *QUEUES, workers=8)) for _ in range(8)]
        wait_until(lambda: any(keeper.keeps_queues for keeper in keepers), 5)
        time.sleep(1)
        before, started = _calls(server), time.monotonic()
        time.sleep(3)
        seconds = time.monotonic() - started
        calls = {name: number - before.get(name, 0) for name, number in _calls(server).items()}
        assert sum(keeper.keeps_queues for keeper in keepers) == 1
        assert calls.pop("mget") <= 8 * (seconds + 1)
        assert sum(calls.values()) <= 8 * (seconds + 1), calls


def test_another_worker_keeps_the_queues_at_once_when_the_keeper_ends(redis_url: str, server: redis.Redis) -> None:
    with keeping(redis_url, *QUEUES) as first:
        wait_until(lambda: first.keeps_queues, 5)
        with keeping(redis_url, *QUEUES) as second:
            first.close()
            assert (server.pttl(KEYS.keeper(QUEUES)) or 0) <= 1
            wait_until(lambda: second.keeps_queues, 5)


def test_due_jobs_of_a_lost_keeper_are_moved_by_another(redis_url: str, server: redis.Redis) -> None:
    server.set(KEYS.keeper(QUEUES), "lost", px=1200)
    with keeping(redis_url, *QUEUES) as keeper:
        server.zadd(KEYS.delayed(QUEUES[3]), {b"1job": 1})
        time.sleep(1)
        assert server.zcard(KEYS.delayed(QUEUES[3])) == 1
        wait_until(lambda: server.llen(KEYS.lists(QUEUES[3])[0]) == 1, 5)
        assert keeper.keeps_queues


def test_workers_of_other_queues_have_a_keeper_of_their_own(redis_url: str) -> None:
    with keeping(redis_url, *QUEUES) as first, keeping(redis_url, QUEUES[0]) as second:
        wait_until(lambda: first.keeps_queues and second.keeps_queues, 5)


def test_a_full_redis_lets_every_worker_keep_the_queues(redis_url: str, server: redis.Redis) -> None:
    server.config_set("maxmemory", "1")
    try:
        with keeping(redis_url, *QUEUES) as first, keeping(redis_url, *QUEUES) as second:
            wait_until(lambda: first.keeps_queues and second.keeps_queues, 5)
    finally:
        server.config_set("maxmemory", "0")


def _calls(server: redis.Redis) -> dict[str, int]:
    """Return how often each command ran, in scripts too, apart from those of the test."""
    stats = server.info("commandstats")
    return {name.removeprefix("cmdstat_"): entry["calls"] for name, entry in stats.items() if "info" not in name}
