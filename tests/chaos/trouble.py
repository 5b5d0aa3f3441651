"""Scenarios in which Redis has trouble: killed, cutting connections, full, forgetful, busy, out of disk."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import redis

from tests.chaos import ledger
from tests.chaos.arena import Arena
from tests.chaos.scenario import scenario

#: Connections that belong to the suite, which no scenario ends.
_OURS = {"chaos", "chaos-witness"}
#: Seconds a replica lags behind, in each direction.
_LAG = 0.2
#: Bytes of the disk that a scenario fills.
_DISK = 24 * 2**20


@scenario(6, "Redis killed and started again", long=8, short=1, control=4)
def redis_killed(arena: Arena) -> None:
    """Redis is killed (-9) under load and started again a moment later, with `appendfsync always`."""
    arena.start_workers(2)
    with arena.load(rate=60, longest=0.1):
        for _ in range(arena.times):
            time.sleep(arena.chance.uniform(1, 2.5))
            arena.redis.kill()
            time.sleep(arena.chance.uniform(0, 1.5))
            restart(arena)


def restart(arena: Arena) -> None:
    """Start Redis again, and wait until work goes on."""
    arena.redis.start()
    arena.redis_returns.append(moment := time.monotonic())
    arena.wait(lambda: arena.witness.first_after(moment), "an outcome after the restart", 60)


@scenario(7, "CLIENT KILL, again and again", long=30, control=15)
def connections_killed(arena: Arena) -> None:
    """Redis ends every connection of workers and producers, every 0.1 to 0.7 s."""
    arena.start_workers(2)
    with arena.load(rate=60, longest=0.1):
        for _ in range(arena.times):
            time.sleep(arena.chance.uniform(0.1, 0.7))
            for client in arena.server.client_list():
                if client["name"] not in _OURS:
                    arena.server.client_kill_filter(_id=client["id"])
        arena.redis_returns.append(time.monotonic())


@scenario(11, "Redis full", long=4, control=3)
def redis_full(arena: Arena) -> None:
    """Redis has no memory left (`maxmemory`, `noeviction`) for 3 s, while producers and workers go on."""
    arena.start_workers(2)
    with arena.load(rate=100, longest=0.1):
        for _ in range(arena.times):
            time.sleep(1.5)
            arena.server.config_set("maxmemory", arena.server.info("memory")["used_memory"])
            time.sleep(3)
            arena.server.config_set("maxmemory", 0)
            arena.redis_returns.append(time.monotonic())
    arena.notes.append(f"{arena.submits_raised} submits raised")


@scenario(13, "scripts forgotten, Redis held up", long=8)
def scripts_flushed(arena: Arena) -> None:
    """`SCRIPT FLUSH` every 20 ms, and `DEBUG SLEEP` of half the lease now and then."""
    arena.start_workers(2)
    with arena.load(rate=60, longest=0.1), _repeated(arena.server.script_flush, 0.02):
        for _ in range(arena.times):
            time.sleep(arena.chance.uniform(0.5, 1.5))
            arena.server.execute_command("DEBUG", "SLEEP", arena.lease / 2)


@contextlib.contextmanager
def _repeated(call: Callable[[], object], every: float) -> Iterator[None]:
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(every):
            with contextlib.suppress(redis.RedisError):
                call()

    thread = threading.Thread(target=repeat, name="chaos-repeated", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)


@scenario(15, "failover by Sentinel", long=1, sentinels=True)
def failover(arena: Arena) -> None:
    """The primary is killed while its replica lags 0.2 s behind. One producer of two submits `durable` jobs."""
    arena.start_workers(2)
    with arena.load(rate=60, longest=0.1), arena.load(rate=40, durable=True):
        arena.sentinels.lag(_LAG)
        time.sleep(5)
        arena.redis.kill()
        arena.sentinels.lose()
        killed = time.monotonic()
        arena.wait(arena.sentinels.promoted, "a new primary")
        arena.server = arena.witness.client = arena.sentinels.client
        arena.notes.append(f"a new primary after {time.monotonic() - killed:.1f} s")
        arena.redis_returns.append(moment := time.monotonic())
        arena.redis.start()  # Sentinel makes it a replica of the new one
        arena.sentinels.lag(0)
        arena.wait(lambda: arena.witness.first_after(moment), "an outcome")
        arena.wait(lambda: arena.server.info("replication")["connected_slaves"], "a replica of the new primary")
        time.sleep(4)
    submitted = ledger.read(arena.folder).submitted
    arena.redis_folder = arena.folder / "replica"
    arena.may_lose = frozenset(
        job for job, line in submitted.items() if not line.durable and line.written_at < killed
    )
    arena.notes.append(f"{sum(line.durable for line in submitted.values())} jobs durable")


@scenario(19, "the disk under Redis full", long=2, disk=_DISK)
def disk_full(arena: Arena) -> None:
    """The disk of the append-only file fills up.

    With `everysec` Redis refuses writes until there is room; with `always` it ends itself, and is started again.
    """
    filler = arena.redis_folder / "filler"
    arena.start_workers(2)
    with arena.load(rate=60, longest=0.1):
        for n in range(arena.times):
            time.sleep(1)
            arena.server.config_set("appendfsync", "always" if n % 2 else "everysec")
            _fill(filler)
            if n % 2:
                arena.wait(lambda: not _answers(arena.server), "the end of Redis")
                arena.redis.kill()
            else:
                arena.wait(lambda: _refuses(arena.server), "a refusal")
                time.sleep(2)
            filler.unlink()
            if n % 2:
                restart(arena)
            else:
                arena.wait(lambda: not _refuses(arena.server), "writes taken again")
                arena.redis_returns.append(time.monotonic())


def _fill(filler: Path) -> None:
    with filler.open("wb") as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(65536))
            file.flush()


def _answers(server: redis.Redis) -> bool:
    try:
        return bool(server.ping())
    except redis.RedisError:
        return False


def _refuses(server: redis.Redis) -> bool:
    return server.info("persistence")["aof_last_write_status"] != "ok"
