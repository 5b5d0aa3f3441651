"""What in a Redis stands against our promises, and how to mend it: a pure function of what it tells of itself.

`headrace doctor` prints the findings; a worker warns of them, or refuses to start. Sources: redis.conf as it
comes with Redis 8, and the documentation of INFO.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, get_args

import msgspec

from headrace.connection.server_info import DIRECTIVES, ServerInfo

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
    actual: str
    expected: str
    #: What it means for jobs.
    why: str
    #: What sets it, a command of Redis's, or else what to do.
    fix: str

    def __str__(self) -> str:
        return f"{self.directive} is {self.actual}, should be {self.expected}: {self.why}. To mend it: {self.fix}"


def worst(found: list[Finding]) -> Level | None:
    """The worst level among findings; None without any."""
    return min((one.level for one in found), key=LEVELS.index, default=None)


def findings(facts: ServerInfo, *, prefix: str = "", by_sentinel: bool = False) -> list[Finding]:
    """What stands against the promises, the worst first; empty when all is well.

    `prefix` is that of our keys; `by_sentinel` says that there is to be a replica to fail over to.
    """
    if not facts.info:
        return [
            Finding(
                level="unknown",
                directive="INFO",
                actual="not permitted to this user",
                expected="permitted",
                why="neither version, eviction nor persistence can be checked",
                fix="ACL SETUSER <user> +info +config|get",
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
                actual="0",
                expected="1 or more",
                why="Sentinel has nothing to fail over to",
                fix="start a replica, or look at its log: its `replicaof` and `masterauth`",
            )
        )
    return sorted(found, key=lambda one: LEVELS.index(one.level))


def _identity(facts: ServerInfo) -> Iterator[Finding]:
    if facts.version < _OLDEST:
        yield Finding(
            level="stops",
            directive="redis_version",
            actual=str(facts.info.get("redis_version", "not told")),
            expected=".".join(map(str, _OLDEST)) + " or later",
            why="older ones lack commands that workers need",
            fix="upgrade Redis, or use Valkey",
        )
    if not facts.is_primary:
        primary = f"{facts.info.get('master_host', '?')}:{facts.info.get('master_port', '?')}"
        yield Finding(
            level="stops",
            directive="role",
            actual="replica",
            expected="master",
            why="a replica takes no writes",
            fix=f"point HEADRACE_REDIS_URL at the primary, {primary}; or make this server one: REPLICAOF NO ONE",
        )
    if facts.number("loading"):
        yield Finding(
            level="breaks",
            directive="loading",
            actual="1",
            expected="0",
            why="Redis reads its data back and answers nobody meanwhile",
            fix="wait, and look again",
        )


def _cluster(facts: ServerInfo, prefix: str) -> Iterator[Finding]:
    if not facts.number("cluster_enabled"):
        return
    instead = "use one primary with replicas and Sentinel"
    if _HASH_TAG.search(prefix):
        yield Finding(
            level="breaks",
            directive="cluster-enabled",
            actual="yes",
            expected="no",
            why="Headrace talks to one server: when slots move, or another takes over, it does not follow",
            fix=instead,
        )
        return
    yield Finding(
        level="stops",
        directive="cluster-enabled",
        actual="yes",
        expected="no",
        why="the keys of a job lie in several slots, which no script may touch together",
        fix=f"{instead}, or set HEADRACE_KEY_PREFIX={{headrace}}: to have all keys in one slot",
    )


def _eviction(facts: ServerInfo) -> Iterator[Finding]:
    policy = str(facts.info.get("maxmemory_policy", "noeviction"))
    if policy == "noeviction":
        return
    bounded = facts.number("maxmemory") > 0
    yield Finding(
        level="stops" if bounded else "weakens",
        directive="maxmemory-policy",
        actual=policy,
        expected="noeviction",
        why="when its memory is full, Redis deletes "
        + (
            "queues with all their jobs, and outcomes"
            if policy.startswith("allkeys")
            else "outcomes and records of jobs"
        )
        + ("" if bounded else "; not before somebody sets maxmemory"),
        fix="CONFIG SET maxmemory-policy noeviction",
    )


def _memory(facts: ServerInfo) -> Iterator[Finding]:
    used, limit, total = (facts.number(name) for name in ("used_memory", "maxmemory", "total_system_memory"))
    if limit and used >= _NEARLY_FULL * limit:
        yield Finding(
            level="breaks" if used >= limit else "weakens",
            directive="maxmemory",
            actual=f"{_size(limit)}, of which {used / limit:.0%} are used",
            expected="more",
            why="a Redis without memory takes no further jobs",
            fix=f"run more workers, or CONFIG SET maxmemory {2 * limit}",
        )
    elif not limit and total and used >= _NEARLY_FULL * total:
        yield Finding(
            level="weakens",
            directive="maxmemory",
            actual=f"0 (no limit), and {used / total:.0%} of the machine's memory are used",
            expected="a limit below the machine's memory",
            why="the system kills a Redis that takes all of it, where one with a limit only refuses further jobs",
            fix=f"CONFIG SET maxmemory {int(_NEARLY_FULL * total)}",
        )
    clients, most = facts.number("connected_clients"), facts.number("maxclients")
    if most and clients >= _NEARLY_FULL * most:
        yield Finding(
            level="weakens",
            directive="maxclients",
            actual=f"{most:,}, of which {clients:,} are taken",
            expected="more",
            why="a producer or worker that gets no connection can do nothing",
            fix=f"CONFIG SET maxclients {2 * most}",
        )


def _persistence(facts: ServerInfo) -> Iterator[Finding]:
    if facts.keeps_file:
        yield from _append_only_file(facts)
    elif "aof_enabled" in facts.info:
        save = facts.config.get("save")
        left = {None: "what came since its last snapshot, if it takes any", "": "every job"}
        yield Finding(
            level="breaks",
            directive="appendonly",
            actual="no",
            expected="yes",
            why=f"a restart of Redis loses {left.get(save, f'what came since its last snapshot (`save {save}`)')}",
            fix="CONFIG SET appendonly yes",
        )
    snapshots = facts.config.get("save", "?") and facts.config.get("stop-writes-on-bgsave-error", "yes") == "yes"
    if facts.info.get("rdb_last_bgsave_status", "ok") != "ok" and snapshots:
        yield _failed(
            "rdb_last_bgsave_status", facts, "breaks", "Redis refuses writes while it cannot save a snapshot"
        )


def _append_only_file(facts: ServerInfo) -> Iterator[Finding]:
    fsync = facts.config.get("appendfsync", "always")
    if fsync != "always":
        yield Finding(
            level="weakens" if fsync == "everysec" else "breaks",
            directive="appendfsync",
            actual=fsync,
            expected="always",
            why="a crash of Redis's machine loses the jobs and outcomes of "
            + ("the last second or two" if fsync == "everysec" else "the last half minute or so")
            + ", also confirmed ones; submit(durable=True) waits until its jobs are safe",
            fix="CONFIG SET appendfsync always",
        )
    if facts.config.get("no-appendfsync-on-rewrite", "no") != "no":
        yield Finding(
            level="weakens",
            directive="no-appendfsync-on-rewrite",
            actual="yes",
            expected="no",
            why="nothing is forced to disk while the append-only file is rewritten, for minutes perhaps",
            fix="CONFIG SET no-appendfsync-on-rewrite no",
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


def _failed(field: str, facts: ServerInfo, level: Level, why: str) -> Finding:
    return Finding(
        level=level,
        directive=field,
        actual=str(facts.info[field]),
        expected="ok",
        why=why,
        fix="look at Redis's log and its disk: is it full, or its folder not writable?",
    )


def _replication(facts: ServerInfo) -> Iterator[Finding]:
    if not facts.is_primary:
        return
    needed = facts.config.get("min-replicas-to-write", "")
    least = int(needed) if needed.isdigit() else 0
    if least > facts.replicas:
        yield Finding(
            level="breaks",
            directive="min-replicas-to-write",
            actual=f"{least}, with {facts.replicas} connected",
            expected=f"{facts.replicas} at the most",
            why="Redis refuses writes until as many replicas are there",
            fix="bring the replicas back, or CONFIG SET min-replicas-to-write 0",
        )
    elif needed == "0" and facts.replicas:
        yield Finding(
            level="weakens",
            directive="min-replicas-to-write",
            actual="0",
            expected="1",
            why="a primary cut off from its replicas still takes jobs, and a failover throws them away; "
            "submit(durable=True) waits until a replica has its jobs",
            fix="CONFIG SET min-replicas-to-write 1",
        )


def _distance(facts: ServerInfo) -> Iterator[Finding]:
    if facts.latency is not None and facts.latency >= _SLOW:
        yield Finding(
            level="weakens",
            directive="latency",
            actual=f"{facts.latency:.0f} ms a round trip",
            expected=f"under {_SLOW:.0f} ms",
            why="every submit and every claim of a worker takes that long",
            fix="move nearer to Redis; if it is near, `redis-cli --latency` and SLOWLOG GET say more",
        )
    if facts.clock is not None and abs(facts.clock) >= _CLOCKS_DIFFER:
        yield Finding(
            level="weakens",
            directive="clock",
            actual=f"{abs(facts.clock):.1f} s {'ahead of' if facts.clock > 0 else 'behind'} this machine's",
            expected=f"within {_CLOCKS_DIFFER:.0f} s",
            why="`expires` and `delay` are reckoned by the producer's clock and kept by Redis's",
            fix="synchronise both clocks (NTP)",
        )


def _unread(facts: ServerInfo) -> Iterator[Finding]:
    left = [name for name in DIRECTIVES if name not in facts.config]
    if not facts.keeps_file:
        left = [name for name in left if "appendfsync" not in name]
    if left:
        yield Finding(
            level="unknown",
            directive="CONFIG GET",
            actual="not permitted to this user",
            expected="permitted, or checked by another user",
            why=f"{', '.join(left)} cannot be read",
            fix="ACL SETUSER <user> +config|get; or ask a user who may, with --url",
        )


def _size(count: int) -> str:
    return f"{count / 2**20:,.0f} MB"
