"""Checks a Redis server's version, role, eviction, memory, persistence, replication, latency and clock.

A pure function of `ServerInfo`. `headrace doctor` prints the findings; a worker logs them when it starts, or
refuses to start. Sources: redis.conf of Redis 8, and the documentation of INFO.
"""

from __future__ import annotations

from collections.abc import Iterator

from headrace.connection.errors import USE_CLUSTER_URL
from headrace.connection.server_info import DIRECTIVES, ServerInfo
from headrace.doctor.finding import Finding, Severity, by_severity
from headrace.wire.keys import has_hash_tag

#: The oldest Redis version that has all commands workers use.
_MINIMUM_VERSION = (6, 2)

#: Used fraction of memory or of connections from which a warning is given.
_NEARLY_FULL = 0.8
#: Milliseconds of a round trip from which a warning is given.
_SLOW_MS = 10.0
#: Seconds of difference between two clocks from which `expires` and `delay` are visibly wrong.
_CLOCK_SKEW_SECONDS = 1.0


def check_redis(
    server: ServerInfo, *, prefix: str = "", by_sentinel: bool = False, in_cluster: bool = False
) -> list[Finding]:
    """Return the findings about a server, the worst first.

    `prefix` is the key prefix of this installation. `by_sentinel` is true where Sentinels name the primary, and
    `in_cluster` where the URL is that of a cluster: a replica is expected then.
    """
    if not server.info:
        return [
            Finding(
                severity="unknown",
                subject="INFO",
                actual="missing on this server, or not permitted to this user",
                expected="permitted",
                reason="version, eviction and persistence cannot be checked",
                fix="ACL SETUSER <user> +info +config|get",
            )
        ]
    checks = (
        _check_identity,
        _check_eviction,
        _check_memory,
        _check_persistence,
        _check_replication,
        _check_distance,
        _check_unreadable_directives,
    )
    findings = [finding for check in checks for finding in check(server)]
    if not in_cluster:
        findings += _check_cluster(server, prefix)
    if (by_sentinel or in_cluster) and not server.get_number("connected_slaves") and server.is_primary:
        findings.append(
            Finding(
                severity="warning",
                subject="connected_slaves",
                actual="0",
                expected="1 or more",
                reason=f"{'Sentinel' if by_sentinel else 'the cluster'} has no replica to fail over to",
                fix="start a replica, or read the replica's log and check its `replicaof` and `masterauth`",
            )
        )
    return by_severity(findings)


def _check_identity(server: ServerInfo) -> Iterator[Finding]:
    if server.version < _MINIMUM_VERSION:
        yield Finding(
            severity="critical",
            subject="redis_version",
            actual=str(server.info.get("redis_version", "unknown")),
            expected=".".join(map(str, _MINIMUM_VERSION)) + " or later",
            reason="older versions lack commands that workers need",
            fix="upgrade Redis, or use Valkey",
        )
    if not server.is_primary:
        primary = f"{server.info.get('master_host', '?')}:{server.info.get('master_port', '?')}"
        yield Finding(
            severity="critical",
            subject="role",
            actual="replica",
            expected="master",
            reason="a replica refuses writes",
            fix=f"point HEADRACE_REDIS_URL at the primary, {primary}; or make this the primary: REPLICAOF NO ONE",
        )
    if server.get_number("loading"):
        yield Finding(
            severity="error",
            subject="loading",
            actual="1",
            expected="0",
            reason="Redis refuses commands while it loads its data",
            fix="wait, then run `headrace doctor` again",
        )


def _check_cluster(server: ServerInfo, prefix: str) -> Iterator[Finding]:
    """Check a URL of one server, which is a node of a cluster."""
    if not server.get_number("cluster_enabled"):
        return
    in_one_slot = has_hash_tag(prefix)
    yield Finding(
        severity="error" if in_one_slot else "critical",
        subject="cluster-enabled",
        actual="yes, and the URL names one node",
        expected="a URL of the cluster",
        reason="over redis://, nothing follows when the slot moves or another node takes over"
        if in_one_slot
        else "the keys of a job are in several slots, and a script may use only one",
        fix=USE_CLUSTER_URL + ("" if in_one_slot else "; the key prefix is {headrace}: then, if none is set"),
    )


def _check_eviction(server: ServerInfo) -> Iterator[Finding]:
    policy = str(server.info.get("maxmemory_policy", "noeviction"))
    if policy == "noeviction":
        return
    has_limit = server.get_number("maxmemory") > 0
    deleted = (
        "queues with all their jobs, and outcomes"
        if policy.startswith("allkeys")
        else "outcomes and records of jobs"
    )
    yield Finding(
        severity="critical" if has_limit else "warning",
        subject="maxmemory-policy",
        actual=policy,
        expected="noeviction",
        reason=f"when its memory is full, Redis deletes {deleted}"
        + ("" if has_limit else "; it does so only once maxmemory is set"),
        fix="CONFIG SET maxmemory-policy noeviction",
    )


def _check_memory(server: ServerInfo) -> Iterator[Finding]:
    used, limit, total = (server.get_number(name) for name in ("used_memory", "maxmemory", "total_system_memory"))
    if limit and used >= _NEARLY_FULL * limit:
        yield Finding(
            severity="error" if used >= limit else "warning",
            subject="maxmemory",
            actual=f"{_format_megabytes(limit)}, of which {used / limit:.0%} are used",
            expected="more",
            reason="a Redis without free memory refuses jobs",
            fix=f"run more workers, or CONFIG SET maxmemory {2 * limit}",
        )
    elif not limit and total and used >= _NEARLY_FULL * total:
        yield Finding(
            severity="warning",
            subject="maxmemory",
            actual=f"0 (no limit), and {used / total:.0%} of the machine's memory are used",
            expected="a limit below the machine's memory",
            reason="the system kills a Redis that uses all memory; with a limit, Redis only refuses further jobs",
            fix=f"CONFIG SET maxmemory {int(_NEARLY_FULL * total)}",
        )
    clients, max_clients = server.get_number("connected_clients"), server.get_number("maxclients")
    if max_clients and clients >= _NEARLY_FULL * max_clients:
        yield Finding(
            severity="warning",
            subject="maxclients",
            actual=f"{max_clients:,}, of which {clients:,} are in use",
            expected="more",
            reason="producers and workers beyond the limit are refused",
            fix=f"CONFIG SET maxclients {2 * max_clients}",
        )


def _check_persistence(server: ServerInfo) -> Iterator[Finding]:
    if server.has_append_only_file:
        yield from _check_append_only_file(server)
    elif "aof_enabled" in server.info:
        save = server.config.get("save")
        lost = {
            None: "everything since its last snapshot, if it takes snapshots",
            "": "every job",
        }.get(save, f"everything since its last snapshot (`save {save}`)")
        yield Finding(
            severity="error",
            subject="appendonly",
            actual="no",
            expected="yes",
            reason=f"a restart of Redis loses {lost}",
            fix="CONFIG SET appendonly yes",
        )
    takes_snapshots = bool(server.config.get("save", "?"))
    stops_writes = server.config.get("stop-writes-on-bgsave-error", "yes") == "yes"
    if server.info.get("rdb_last_bgsave_status", "ok") != "ok" and takes_snapshots and stops_writes:
        yield _report_failed_write(
            server, "rdb_last_bgsave_status", "error", "Redis refuses writes while it cannot save a snapshot"
        )


def _check_append_only_file(server: ServerInfo) -> Iterator[Finding]:
    fsync = server.config.get("appendfsync", "always")
    if fsync != "always":
        span = "the last second or two" if fsync == "everysec" else "about the last 30 seconds"
        yield Finding(
            severity="warning" if fsync == "everysec" else "error",
            subject="appendfsync",
            actual=fsync,
            expected="always",
            reason=f"a crash of Redis's machine loses the jobs and outcomes of {span}, also confirmed ones; "
            "submit(durable=True) waits until its jobs are safe",
            fix="CONFIG SET appendfsync always",
        )
    if server.config.get("no-appendfsync-on-rewrite", "no") != "no":
        yield Finding(
            severity="warning",
            subject="no-appendfsync-on-rewrite",
            actual="yes",
            expected="no",
            reason="nothing is forced to disk while the append-only file is rewritten, which may take minutes",
            fix="CONFIG SET no-appendfsync-on-rewrite no",
        )
    if server.info.get("aof_last_write_status", "ok") != "ok":
        yield _report_failed_write(
            server, "aof_last_write_status", "error", "Redis cannot write its append-only file, and refuses writes"
        )
    if server.info.get("aof_last_bgrewrite_status", "ok") != "ok":
        yield _report_failed_write(
            server, "aof_last_bgrewrite_status", "warning", "the append-only file grows until the disk is full"
        )


def _report_failed_write(server: ServerInfo, field: str, severity: Severity, reason: str) -> Finding:
    return Finding(
        severity=severity,
        subject=field,
        actual=str(server.info[field]),
        expected="ok",
        reason=reason,
        fix="read Redis's log; check that its disk is not full and its folder is writable",
    )


def _check_replication(server: ServerInfo) -> Iterator[Finding]:
    if not server.is_primary:
        return
    setting = server.config.get("min-replicas-to-write", "")
    required = int(setting) if setting.isdigit() else 0
    if required > server.replicas:
        yield Finding(
            severity="error",
            subject="min-replicas-to-write",
            actual=f"{required}, with {server.replicas} connected",
            expected=f"at most {server.replicas}",
            reason="Redis refuses writes until that number of replicas is connected",
            fix="bring the replicas back, or CONFIG SET min-replicas-to-write 0",
        )
    elif setting == "0" and server.replicas:
        yield Finding(
            severity="warning",
            subject="min-replicas-to-write",
            actual="0",
            expected="1",
            reason="a primary cut off from its replicas still accepts jobs, and a failover discards them; "
            "submit(durable=True) waits until a replica has its jobs",
            fix="CONFIG SET min-replicas-to-write 1",
        )


def _check_distance(server: ServerInfo) -> Iterator[Finding]:
    if server.latency_ms is not None and server.latency_ms >= _SLOW_MS:
        yield Finding(
            severity="warning",
            subject="latency",
            actual=f"{server.latency_ms:.0f} ms a round trip",
            expected=f"under {_SLOW_MS:.0f} ms",
            reason="every submit and every claim of a worker takes that long",
            fix="move closer to Redis; if it is close, look at `redis-cli --latency` and SLOWLOG GET",
        )
    offset = server.clock_offset
    if offset is not None and abs(offset) >= _CLOCK_SKEW_SECONDS:
        yield Finding(
            severity="warning",
            subject="clock",
            actual=f"{abs(offset):.1f} s {'ahead of' if offset > 0 else 'behind'} this machine's",
            expected=f"within {_CLOCK_SKEW_SECONDS:.0f} s",
            reason="`expires` and `delay` are computed with the producer's clock and compared with Redis's",
            fix="synchronise both clocks (NTP)",
        )


def _check_unreadable_directives(server: ServerInfo) -> Iterator[Finding]:
    unreadable = [name for name in DIRECTIVES if name not in server.config]
    if not server.has_append_only_file:
        unreadable = [name for name in unreadable if "appendfsync" not in name]
    if unreadable:
        yield Finding(
            severity="unknown",
            subject="CONFIG GET",
            actual="missing on this server, or not permitted to this user",
            expected="permitted, or checked by another user",
            reason=f"{', '.join(unreadable)} cannot be read",
            fix="ACL SETUSER <user> +config|get; or name a permitted user in --url",
        )


def _format_megabytes(count: int) -> str:
    return f"{count / 2**20:,.0f} MB"
