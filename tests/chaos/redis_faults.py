"""Scenarios with Redis faults: killed, connections ended, out of memory, scripts flushed, failover, disk full."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import redis

from tests.chaos import ledger
from tests.chaos.environment import Environment
from tests.chaos.scenario import scenario

#: Names of the suite's own connections, which no scenario ends.
_SUITE_CONNECTIONS = {"chaos", "chaos-recorder"}
#: Seconds for which Redis is away in each repetition, and seconds after its return until an outcome is due.
_AWAY_SECONDS, _RETURN_SECONDS = 10.0, 3.0
#: Seconds of a replica's lag, in each direction.
_LAG_SECONDS = 0.2
#: Seconds of a slow sync, seconds for which syncs are slow, and leases for which the disk then hangs.
_SYNC_SECONDS, _SLOW_SECONDS, _HUNG_LEASES = (0.02, 0.3), 4.0, 1.5
#: Bytes of the disk that a scenario fills.
DISK_BYTES = 24 * 2**20


@scenario(6, "Redis killed and restarted", long=8, short=1, control=4)
def redis_killed(env: Environment) -> None:
    """Redis is killed (SIGKILL) under load and restarted within 1.5 s, with `appendfsync always`."""
    env.start_workers(2)
    with env.load(rate=60, longest=0.1):
        for _ in range(env.repetitions):
            time.sleep(env.random.uniform(1, 2.5))
            env.kill_redis()
            time.sleep(env.random.uniform(0, 1.5))
            restart(env)


def restart(env: Environment) -> float:
    """Start Redis again, wait for the next outcome, and return the seconds until it."""
    env.redis.start()
    env.redis_recovered_at.append(answered_at := time.monotonic())
    return wait_for_outcome(env, answered_at)


def wait_for_outcome(env: Environment, moment: float) -> float:
    """Wait for the next outcome after a monotonic time, and return the seconds until it."""
    return float(env.wait(lambda: env.recorder.seconds_to_next(moment), "an outcome", 60))


@scenario(21, "Redis away for minutes", long=18, short=1)
def redis_away(env: Environment) -> None:
    """Redis is killed under load, and away for 3 minutes (10 s in small); the next outcome is due within 3 s."""
    workers = env.start_workers(2)
    with env.load(rate=20, longest=0.1):
        time.sleep(2)
        env.redis.kill()
        time.sleep(_AWAY_SECONDS * env.repetitions)
        logged = [len(worker.log.read_text().splitlines()) for worker in workers]
        seconds = restart(env)
    env.notes.append(f"next outcome after {seconds:.1f} s; {max(logged)} lines in a worker's log")
    env.expect(env.repetitions == 1 or seconds <= _RETURN_SECONDS, f"no outcome within {_RETURN_SECONDS:g} s")
    env.expect(all(worker.is_alive for worker in workers), "a worker ended while Redis was away")


@scenario(7, "CLIENT KILL, repeatedly", long=30, control=15)
def connections_killed(env: Environment) -> None:
    """Redis ends every connection of workers and producers, every 0.1 to 0.7 s."""
    env.start_workers(2)
    with env.load(rate=60, longest=0.1):
        for _ in range(env.repetitions):
            time.sleep(env.random.uniform(0.1, 0.7))
            end_connections(env)
        env.redis_recovered_at.append(time.monotonic())


def end_connections(env: Environment) -> None:
    """End every connection of workers and producers (CLIENT KILL)."""
    for client in env.server.client_list():
        if client["name"] not in _SUITE_CONNECTIONS:
            env.server.client_kill_filter(_id=client["id"])


@scenario(11, "Redis out of memory", long=4, control=3)
def redis_full(env: Environment) -> None:
    """Redis has no memory left (`maxmemory`, `noeviction`) for 3 s, while producers and workers continue."""
    env.start_workers(2)
    with env.load(rate=100, longest=0.1):
        for _ in range(env.repetitions):
            time.sleep(1.5)
            env.server.config_set("maxmemory", env.server.info("memory")["used_memory"])
            time.sleep(3)
            env.server.config_set("maxmemory", 0)
            env.redis_recovered_at.append(time.monotonic())
    env.notes.append(f"{env.failed_submits} submits raised")


@scenario(13, "scripts flushed, Redis blocked", long=8)
def scripts_flushed(env: Environment) -> None:
    """`SCRIPT FLUSH` every 20 ms, and `DEBUG SLEEP` of half the lease every 0.5 to 1.5 s."""
    env.start_workers(2)
    with env.load(rate=60, longest=0.1), _repeat(env.server.script_flush, 0.02):
        for _ in range(env.repetitions):
            time.sleep(env.random.uniform(0.5, 1.5))
            env.server.execute_command("DEBUG", "SLEEP", env.lease / 2)


@contextlib.contextmanager
def _repeat(call: Callable[[], object], interval: float) -> Iterator[None]:
    stopped = threading.Event()

    def repeat() -> None:
        while not stopped.wait(interval):
            with contextlib.suppress(redis.RedisError):
                call()

    thread = threading.Thread(target=repeat, name="chaos-repeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(10)


@scenario(15, "failover by Sentinel", long=1, sentinels=True)
def failover(env: Environment) -> None:
    """The primary is killed while its replica is 0.2 s behind. One of two producers submits `durable` jobs."""
    env.start_workers(2)
    with env.load(rate=60, longest=0.1), env.load(rate=40, durable=True):
        env.sentinels.lag(_LAG_SECONDS)
        time.sleep(5)
        killed = fail_over(env)
        time.sleep(4)
    env.may_be_lost = find_undurable(env, killed)


def find_undurable(env: Environment, killed: float) -> frozenset[str]:
    """Return the jobs submitted before a primary was killed and without `durable`, and note how many had it."""
    submitted = ledger.read(env.folder).submitted
    env.notes.append(f"{sum(line.durable for line in submitted.values())} durable jobs")
    return frozenset(job for job, line in submitted.items() if not line.durable and line.written_at < killed)


def fail_over(env: Environment) -> float:
    """Kill the primary, wait until Sentinel has promoted the replica, and let the killed one replicate from it.

    Data on its way to the replica is lost. Return the monotonic time of the kill.
    """
    env.redis.kill()
    env.sentinels.lose()
    killed = time.monotonic()
    env.wait(env.sentinels.promoted, "a new primary")
    env.server = env.recorder.client = env.sentinels.client
    env.redis_folder = env.folder / "replica"
    env.notes.append(f"new primary after {time.monotonic() - killed:.1f} s")
    env.redis_recovered_at.append(answered_at := time.monotonic())
    env.redis.start()  # Sentinel makes it a replica of the new one
    env.sentinels.lag(0)
    wait_for_outcome(env, answered_at)
    env.wait(lambda: env.server.info("replication")["connected_slaves"], "a replica of the new primary")
    return killed


@scenario(19, "disk of Redis full", long=2, disk=DISK_BYTES)
def disk_full(env: Environment) -> None:
    """The disk of the append-only file is full.

    With `everysec` Redis refuses writes until there is room; with `always` it exits, and is started again.
    """
    env.start_workers(2)
    with env.load(rate=60, longest=0.1):
        for number in range(env.repetitions):
            time.sleep(1)
            fill_disk(env, "always" if number % 2 else "everysec")


def fill_disk(env: Environment, appendfsync: str) -> None:
    """Fill the disk of Redis until it refuses writes, or with `always` until it exits, and make room again."""
    filler = env.redis_folder / "filler"
    env.server.config_set("appendfsync", appendfsync)
    _fill(filler)
    if appendfsync == "always":
        env.wait(lambda: not _answers(env.server), "the end of Redis")
        env.redis.kill()
        filler.unlink()
        restart(env)
    else:
        env.wait(lambda: _refuses(env.server), "a refusal")
        time.sleep(2)
        filler.unlink()
        env.wait(lambda: not _refuses(env.server), "accepted writes")
        env.redis_recovered_at.append(time.monotonic())


def _fill(filler: Path) -> None:
    # Without a buffer: the rest in one could not be written when the file is closed.
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(65536))


def _answers(server: redis.Redis) -> bool:
    try:
        return bool(server.ping())
    except redis.RedisError:
        return False


def _refuses(server: redis.Redis) -> bool:
    return server.info("persistence")["aof_last_write_status"] != "ok"


@scenario(35, "a slow disk", long=4, preload="slow_disk.c")
def disk_slow(env: Environment) -> None:
    """The disk of the append-only file syncs slowly, then hangs for longer than a lease, and goes on.

    Each sync takes 0.02 to 0.3 s for 4 s, with `always` and with `everysec` in turn, before the disk hangs.
    """
    env.start_workers(2)
    with env.load(rate=30, longest=0.1):
        for number in range(env.repetitions):
            env.server.config_set("appendfsync", "everysec" if number % 2 else "always")
            env.preloaded.set(round(1000 * env.random.uniform(*_SYNC_SECONDS)))
            time.sleep(_SLOW_SECONDS)
            env.preloaded.set(round(1000 * _HUNG_LEASES * 2 * env.lease))
            time.sleep(_HUNG_LEASES * env.lease)
            env.preloaded.set(0)
            env.wait(lambda: _answers(env.server), "an answer of Redis")
            env.redis_recovered_at.append(moment := time.monotonic())
            wait_for_outcome(env, moment)
            time.sleep(1)
    env.notes.append(f"{env.repetitions} times slow, then hung; {env.failed_submits} submits raised")
