"""The scenario with a Redis Cluster: its primary is killed, hands over, and loses the slot."""

from __future__ import annotations

import time

from tests.chaos import ledger
from tests.chaos.environment import Environment
from tests.chaos.scenario import scenario

#: The number of keys that move at a time.
_MOVED_KEYS = 100


@scenario(22, "failover and reshard in a cluster", long=1, cluster=True)
def cluster_failover(env: Environment) -> None:
    """The primary of the slot is killed, its successor hands over to it, and the slot moves to another node.

    One of two producers submits `durable` jobs.
    """
    cluster = env.cluster
    env.start_workers(2)
    with env.load(rate=60, longest=0.1), env.load(rate=40, durable=True):
        time.sleep(4)
        primary = cluster.owner()
        primary.server.kill()
        killed = time.monotonic()
        env.wait(lambda: cluster.owner() is not primary, "a new primary")
        env.notes.append(f"new primary after {time.monotonic() - killed:.1f} s")
        _follow(env)
        primary.server.start()  # the cluster makes it a replica
        env.wait(lambda: _is_replicated(env), "a replica of the new primary")
        time.sleep(3)
        cluster.fail_over()
        _follow(env)
        time.sleep(3)
        started = time.monotonic()
        cluster.move_slot(cluster.others()[0], keys=_MOVED_KEYS)
        env.notes.append(f"slot moved in {time.monotonic() - started:.1f} s")
        _follow(env)
        time.sleep(4)
    submitted = ledger.read(env.folder).submitted
    env.may_be_lost = frozenset(
        job for job, line in submitted.items() if not line.durable and line.written_at < killed
    )
    env.notes.append(f"{sum(line.durable for line in submitted.values())} durable jobs")


def _follow(env: Environment) -> None:
    """Go on with the primary of now, and wait for the next outcome."""
    owner = env.cluster.owner()
    env.server, env.redis_folder = owner.db, owner.folder
    env.redis_recovered_at.append(moment := time.monotonic())
    env.wait(lambda: env.recorder.seconds_to_next(moment), "an outcome")


def _is_replicated(env: Environment) -> bool:
    return bool(env.server.info("replication")["connected_slaves"])
