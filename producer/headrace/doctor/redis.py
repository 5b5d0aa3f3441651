"""What in a Redis stands against our promises, and how to mend it: a pure function of what it tells of itself.

`headrace doctor` prints the findings; a worker warns of them, or refuses to start. Sources: redis.conf as it
comes with Redis 8, and the documentation of INFO.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, get_args

import msgspec

from headrace.connection.server_info import DIRECTIVES, Facts

#: How bad it is. `stops`: jobs are deleted, or cannot be taken at all. `breaks`: something that is promised
#: does not hold. `weakens`: it holds within a limit, which the finding names. `unknown`: it cannot be told.
Level = Literal["stops", "breaks", "weakens", "unknown"]
LEVELS: tuple[Level, ...] = get_args(Level)
#: Those with which Redis does not keep what is promised.
BROKEN: tuple[Level, ...] = ("stops", "breaks")

#: The oldest Redis that has all the commands that workers use.
_OLDEST = (6, 2)

#: The part of the memory, or of the connections, from which on little is left.
_NEARLY_FULL = 0.8
#: Milliseconds of a round trip from which on it is what a submit takes.
_SLOW = 10.0
#: Seconds two clocks may differ before `expires` and `delay` are visibly off.
_CLOCKS_DIFFER = 1.0

#: What a cluster takes for the name of a slot.
_HASH_TAG = re.compile(r"^[^{]*\{[^}]+\}")


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that stands against a promise."""

    level: Level
    #: The directive of redis.conf, or what else it is about.
    directive: str
    found: str
    wanted: str
    #: What it means for jobs.
    why: str
    #: What sets it, a command of Redis's, or else what to do.
    do: str

    def __str__(self) -> str:
        return f"{self.directive} is {self.found}, should be {self.wanted}: {self.why}. To mend it: {self.do}"


def worst(found: list[Finding]) -> Level | None:
    """The worst level among findings; None without any."""
    return min((one.level for one in found), key=LEVELS.index, default=None)


def findings(facts: Facts, *, prefix: str = "", by_sentinel: bool = False) -> list[Finding]:
    """What stands against the promises, the worst first; empty when all is well.

    `prefix` is that of our keys; `by_sentinel` says that there is to be a replica to fail over to.
    """
    if not facts.info:
        return [
            Finding(
                level="unknown",
                directive="INFO",
                found="not permitted to this user",
                wanted="permitted",
                why="neither version, eviction nor persistence can be checked",
                do="ACL SETUSER <user> +info +config|get",
            )
        ]
    parts = (_identity, _eviction, _memory, _persistence, _replication, _distance, _unread)
    found = [one for part in parts for one in part(facts)]
    found += _cluster(facts, prefix)
    if by_sentinel and not facts.number("connected_slaves") and facts.is_primary:
        found.append(
            Finding(
                level="weakens",
                directive="connected_slaves",
                found="0",
                wanted="1 or more",
                why="Sentinel has nothing to fail over to",
                do="start a replica, or look at its log: its `replicaof` and `masterauth`",
            )
        )
    return sorted(found, key=lambda one: LEVELS.index(one.level))


def _identity(facts: Facts) -> Iterator[Finding]:
    if facts.version < _OLDEST:
        yield Finding(
            level="stops",
            directive="redis_version",
            found=str(facts.info.get("redis_version", "not told")),
            wanted=".".join(map(str, _OLDEST)) + " or later",
            why="older ones lack commands that workers need",
            do="upgrade Redis, or use Valkey",
        )
    if not facts.is_primary:
        primary = f"{facts.info.get('master_host', '?')}:{facts.info.get('master_port', '?')}"
        yield Finding(
            level="stops",
            directive="role",
            found="replica",
            wanted="master",
            why="a replica takes no writes",
            do=f"point HEADRACE_REDIS_URL at the primary, {primary}; or REPLICAOF NO ONE makes this one a primary",
        )
    if facts.number("loading"):
        yield Finding(
            level="breaks",
            directive="loading",
            found="1",
            wanted="0",
            why="Redis reads its data back and answers nobody meanwhile",
            do="wait, and look again",
        )


def _cluster(facts: Facts, prefix: str) -> Iterator[Finding]:
    if not facts.number("cluster_enabled"):
        return
    instead = "use one primary with replicas and Sentinel"
    if _HASH_TAG.search(prefix):
        yield Finding(
            level="breaks",
            directive="cluster-enabled",
            found="yes",
            wanted="no",
            why="Headrace talks to one server: when slots move, or another takes over, it does not follow",
            do=instead,
        )
        return
    yield Finding(
        level="stops",
        directive="cluster-enabled",
        found="yes",
        wanted="no",
        why="the keys of a job lie in several slots, which no script may touch together",
        do=f"{instead}, or set HEADRACE_KEY_PREFIX={{headrace}}: to have all keys in one slot",
    )


def _eviction(facts: Facts) -> Iterator[Finding]:
    policy = str(facts.info.get("maxmemory_policy", "noeviction"))
    if policy == "noeviction":
        return
    bounded = facts.number("maxmemory") > 0
    yield Finding(
        level="stops" if bounded else "weakens",
        directive="maxmemory-policy",
        found=policy,
        wanted="noeviction",
        why="when its memory is full, Redis deletes "
        + (
            "queues with all their jobs, and outcomes"
            if policy.startswith("allkeys")
            else "outcomes and records of jobs"
        )
        + ("" if bounded else "; not before somebody sets maxmemory"),
        do="CONFIG SET maxmemory-policy noeviction",
    )


def _memory(facts: Facts) -> Iterator[Finding]:
    used, limit, total = (facts.number(name) for name in ("used_memory", "maxmemory", "total_system_memory"))
    if limit and used >= _NEARLY_FULL * limit:
        yield Finding(
            level="breaks" if used >= limit else "weakens",
            directive="maxmemory",
            found=f"{_size(limit)}, of which {used / limit:.0%} are used",
            wanted="more",
            why="a Redis without memory takes no further jobs",
            do=f"run more workers, or CONFIG SET maxmemory {2 * limit}",
        )
    elif not limit and total and used >= _NEARLY_FULL * total:
        yield Finding(
            level="weakens",
            directive="maxmemory",
            found=f"0 (no limit), and {used / total:.0%} of the machine's memory are used",
            wanted="a limit below the machine's memory",
            why="the system kills a Redis that takes all of it, where one with a limit only refuses further jobs",
            do=f"CONFIG SET maxmemory {int(_NEARLY_FULL * total)}",
        )
    clients, most = facts.number("connected_clients"), facts.number("maxclients")
    if most and clients >= _NEARLY_FULL * most:
        yield Finding(
            level="weakens",
            directive="maxclients",
            found=f"{most:,}, of which {clients:,} are taken",
            wanted="more",
            why="a producer or worker that gets no connection can do nothing",
            do=f"CONFIG SET maxclients {2 * most}",
        )


def _persistence(facts: Facts) -> Iterator[Finding]:
    if facts.keeps_file:
        yield from _append_only_file(facts)
    elif "aof_enabled" in facts.info:
        save = facts.config.get("save")
        left = {None: "what came since its last snapshot, if it takes any", "": "every job"}
        yield Finding(
            level="breaks",
            directive="appendonly",
            found="no",
            wanted="yes",
            why=f"a restart of Redis loses {left.get(save, f'what came since its last snapshot (`save {save}`)')}",
            do="CONFIG SET appendonly yes",
        )
    snapshots = facts.config.get("save", "?") and facts.config.get("stop-writes-on-bgsave-error", "yes") == "yes"
    if facts.info.get("rdb_last_bgsave_status", "ok") != "ok" and snapshots:
        yield _failed(
            "rdb_last_bgsave_status", facts, "breaks", "Redis refuses writes while it cannot save a snapshot"
        )


def _append_only_file(facts: Facts) -> Iterator[Finding]:
    fsync = facts.config.get("appendfsync", "always")
    if fsync != "always":
        yield Finding(
            level="weakens" if fsync == "everysec" else "breaks",
            directive="appendfsync",
            found=fsync,
            wanted="always",
            why="a crash of Redis's machine loses the jobs and outcomes of "
            + ("the last second or two" if fsync == "everysec" else "the last half minute or so")
            + ", also confirmed ones; submit(durable=True) waits until its jobs are safe",
            do="CONFIG SET appendfsync always",
        )
    if facts.config.get("no-appendfsync-on-rewrite", "no") != "no":
        yield Finding(
            level="weakens",
            directive="no-appendfsync-on-rewrite",
            found="yes",
            wanted="no",
            why="nothing is forced to disk while the append-only file is rewritten, for minutes perhaps",
            do="CONFIG SET no-appendfsync-on-rewrite no",
        )
    if facts.info.get("aof_last_write_status", "ok") != "ok":
        yield _failed(
            "aof_last_write_status", facts, "breaks", "Redis cannot write its append-only file, and refuses writes"
        )
    if facts.info.get("aof_last_bgrewrite_status", "ok") != "ok":
        yield _failed(
            "aof_last_bgrewrite_status",
            facts,
            "weakens",
            "the append-only file only grows, until the disk is full",
        )


def _failed(field: str, facts: Facts, level: Level, why: str) -> Finding:
    return Finding(
        level=level,
        directive=field,
        found=str(facts.info[field]),
        wanted="ok",
        why=why,
        do="look at Redis's log and its disk: is it full, or its folder not writable?",
    )


def _replication(facts: Facts) -> Iterator[Finding]:
    if not facts.is_primary:
        return
    needed = facts.config.get("min-replicas-to-write", "")
    least = int(needed) if needed.isdigit() else 0
    if least > facts.replicas:
        yield Finding(
            level="breaks",
            directive="min-replicas-to-write",
            found=f"{least}, with {facts.replicas} connected",
            wanted=f"{facts.replicas} at the most",
            why="Redis refuses writes until as many replicas are there",
            do="bring the replicas back, or CONFIG SET min-replicas-to-write 0",
        )
    elif needed == "0" and facts.replicas:
        yield Finding(
            level="weakens",
            directive="min-replicas-to-write",
            found="0",
            wanted="1",
            why="a primary cut off from its replicas still takes jobs, and a failover throws them away; "
            "submit(durable=True) waits until a replica has its jobs",
            do="CONFIG SET min-replicas-to-write 1",
        )


def _distance(facts: Facts) -> Iterator[Finding]:
    if facts.latency is not None and facts.latency >= _SLOW:
        yield Finding(
            level="weakens",
            directive="latency",
            found=f"{facts.latency:.0f} ms a round trip",
            wanted=f"under {_SLOW:.0f} ms",
            why="every submit and every claim of a worker takes that long",
            do="move nearer to Redis; if it is near, `redis-cli --latency` and SLOWLOG GET say more",
        )
    if facts.clock is not None and abs(facts.clock) >= _CLOCKS_DIFFER:
        yield Finding(
            level="weakens",
            directive="clock",
            found=f"{abs(facts.clock):.1f} s {'ahead of' if facts.clock > 0 else 'behind'} this machine's",
            wanted=f"within {_CLOCKS_DIFFER:.0f} s",
            why="`expires` and `delay` are reckoned by the producer's clock and kept by Redis's",
            do="synchronise both clocks (NTP)",
        )


def _unread(facts: Facts) -> Iterator[Finding]:
    left = [name for name in DIRECTIVES if name not in facts.config]
    if not facts.keeps_file:
        left = [name for name in left if "appendfsync" not in name]
    if left:
        yield Finding(
            level="unknown",
            directive="CONFIG GET",
            found="not permitted to this user",
            wanted="permitted, or checked by another user",
            why=f"{', '.join(left)} cannot be read",
            do="ACL SETUSER <user> +config|get; or ask a user who may, with --url",
        )


def _size(count: int) -> str:
    return f"{count / 2**20:,.0f} MB"
