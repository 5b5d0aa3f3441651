"""Tests of the findings about a Redis server: what is reported, with which severity and which fix."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.connection.server_info import DIRECTIVES, ServerInfo
from headrace.doctor.finding import SEVERITIES, Finding, worst_severity
from headrace.doctor.redis import check_redis

GIGABYTE = 10**9
GOOD_INFO = {
    "redis_version": "7.0.15",
    "role": "master",
    "connected_slaves": 0,
    "maxmemory": 0,
    "maxmemory_policy": "noeviction",
    "used_memory": 2**20,
    "total_system_memory": 2**34,
    "aof_enabled": 1,
    "aof_last_write_status": "ok",
    "aof_last_bgrewrite_status": "ok",
    "rdb_last_bgsave_status": "ok",
    "cluster_enabled": 0,
    "loading": 0,
    "connected_clients": 10,
    "maxclients": 10_000,
}
GOOD_CONFIG = {
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "save": "",
    "stop-writes-on-bgsave-error": "yes",
    "min-replicas-to-write": "0",
}


def server_info(config: dict[str, str] | None = None, **info: Any) -> ServerInfo:
    """Return the facts about a well-configured Redis, with these directives and fields of INFO changed."""
    settings = {name.replace("_", "-"): value for name, value in (config or {}).items()}
    return ServerInfo(
        info={**GOOD_INFO, **info}, config={**GOOD_CONFIG, **settings}, latency_ms=0.2, clock_offset=0.01
    )


def only_finding(server: ServerInfo, **options: Any) -> Finding:
    """Return the only finding about a server."""
    (finding,) = check_redis(server, **options)
    return finding


def replicas(count: int, state: str = "online") -> dict[str, Any]:
    return {"connected_slaves": count, **{f"slave{n}": {"state": state, "lag": 0} for n in range(count)}}


def test_a_well_configured_redis_has_no_findings():
    assert check_redis(server_info()) == []
    assert worst_severity([]) is None
    assert set(GOOD_CONFIG) == set(DIRECTIVES)


@pytest.mark.parametrize(
    ("config", "info", "severity", "subject", "fix"),
    [
        ({}, {"redis_version": "6.0.16"}, "critical", "redis_version", "upgrade"),
        ({}, {"redis_version": 5.0}, "critical", "redis_version", "upgrade"),
        (
            {},
            {"maxmemory": GIGABYTE, "maxmemory_policy": "allkeys-lru"},
            "critical",
            "maxmemory-policy",
            "noeviction",
        ),
        (
            {},
            {"maxmemory": GIGABYTE, "maxmemory_policy": "volatile-ttl"},
            "critical",
            "maxmemory-policy",
            "noeviction",
        ),
        ({}, {"maxmemory_policy": "allkeys-lru"}, "warning", "maxmemory-policy", "noeviction"),
        ({}, {"maxmemory": 2**20, "used_memory": 2**20}, "error", "maxmemory", "CONFIG SET maxmemory 2097152"),
        ({}, {"maxmemory": 100, "used_memory": 81}, "warning", "maxmemory", "run more workers"),
        ({}, {"used_memory": 90, "total_system_memory": 100}, "warning", "maxmemory", "CONFIG SET maxmemory 80"),
        ({}, {"connected_clients": 81, "maxclients": 100}, "warning", "maxclients", "CONFIG SET maxclients 200"),
        ({}, {"aof_last_write_status": "err"}, "error", "aof_last_write_status", "disk"),
        ({}, {"aof_last_bgrewrite_status": "err"}, "warning", "aof_last_bgrewrite_status", "disk"),
        ({"appendfsync": "everysec"}, {}, "warning", "appendfsync", "CONFIG SET appendfsync always"),
        ({"appendfsync": "no"}, {}, "error", "appendfsync", "CONFIG SET appendfsync always"),
        (
            {"no_appendfsync_on_rewrite": "yes"},
            {},
            "warning",
            "no-appendfsync-on-rewrite",
            "CONFIG SET no-appendfsync-on-rewrite no",
        ),
        (
            {"save": "3600 1"},
            {"rdb_last_bgsave_status": "err"},
            "error",
            "rdb_last_bgsave_status",
            "disk",
        ),
        ({}, {"role": "slave", "master_host": "db1", "master_port": 6380}, "critical", "role", "db1:6380"),
        ({}, {"loading": 1}, "error", "loading", "wait"),
        ({}, {"cluster_enabled": 1}, "critical", "cluster-enabled", "cluster://HOST:PORT in HEADRACE_REDIS_URL"),
        (
            {"min_replicas_to_write": "2"},
            replicas(1),
            "error",
            "min-replicas-to-write",
            "bring the replicas back",
        ),
        ({}, replicas(1), "warning", "min-replicas-to-write", "CONFIG SET min-replicas-to-write 1"),
    ],
)
def test_each_problem_is_reported_with_its_severity_and_fix(
    config: dict[str, str], info: dict[str, Any], severity: str, subject: str, fix: str
):
    finding = only_finding(server_info(config, **info))
    assert (finding.severity, finding.subject) == (severity, subject)
    assert fix in finding.fix
    assert all((finding.actual, finding.expected, finding.reason))
    assert str(finding).startswith(f"{subject} is {finding.actual}, should be {finding.expected}: ")


@pytest.mark.parametrize(
    ("save", "loss"),
    [("", "every job"), ("3600 1", "last snapshot (`save 3600 1`)"), (None, "if it takes snapshots")],
)
def test_without_an_append_only_file_the_finding_names_the_loss_at_a_restart(save: str | None, loss: str):
    config = {name: value for name, value in {**GOOD_CONFIG, "save": save}.items() if value is not None}
    findings = check_redis(ServerInfo(info={**GOOD_INFO, "aof_enabled": 0}, config=config))
    assert (findings[0].severity, findings[0].subject) == ("error", "appendonly")
    assert loss in findings[0].reason


def test_a_failed_snapshot_is_no_finding_where_snapshots_are_off_or_writes_continue():
    assert check_redis(server_info({"save": ""}, rdb_last_bgsave_status="err")) == []
    writes_continue = {"save": "3600 1", "stop_writes_on_bgsave_error": "no"}
    assert check_redis(server_info(writes_continue, rdb_last_bgsave_status="err")) == []


def test_a_replica_that_is_still_copying_does_not_count():
    assert (
        only_finding(server_info({"min_replicas_to_write": "1"}, **replicas(1, "send_bulk"))).severity == "error"
    )
    assert check_redis(server_info({"min_replicas_to_write": "1"}, **replicas(1))) == []


def test_a_key_prefix_with_a_hash_tag_lowers_the_severity_of_a_cluster():
    assert only_finding(server_info(cluster_enabled=1), prefix="{shop}:").severity == "error"
    assert only_finding(server_info(cluster_enabled=1), prefix="{}:").severity == "critical"


def test_a_cluster_behind_its_own_url_needs_a_replica_and_nothing_else():
    node = {"cluster_enabled": 1}
    assert only_finding(server_info(**node), prefix="{shop}:", in_cluster=True).subject == "connected_slaves"
    replicated = server_info({"min_replicas_to_write": "1"}, **node, **replicas(1))
    assert check_redis(replicated, prefix="{shop}:", in_cluster=True) == []


def test_sentinel_without_a_replica_is_a_finding():
    assert only_finding(server_info(), by_sentinel=True).subject == "connected_slaves"
    assert check_redis(server_info({"min_replicas_to_write": "1"}, **replicas(1)), by_sentinel=True) == []


def test_a_slow_round_trip_and_a_wrong_clock_are_findings():
    distant = ServerInfo(info=GOOD_INFO, config=GOOD_CONFIG, latency_ms=35.0, clock_offset=-3600)
    assert [finding.subject for finding in check_redis(distant)] == ["latency", "clock"]
    assert "behind" in check_redis(distant)[1].actual
    assert check_redis(ServerInfo(info=GOOD_INFO, config=GOOD_CONFIG, latency_ms=None, clock_offset=None)) == []


def test_a_user_without_config_get_learns_which_directives_were_not_checked():
    findings = check_redis(ServerInfo(info={**GOOD_INFO, "maxmemory": 1, "maxmemory_policy": "allkeys-lru"}))
    assert [(finding.severity, finding.subject) for finding in findings if finding.severity != "error"] == [
        ("critical", "maxmemory-policy"),
        ("unknown", "CONFIG GET"),
    ]
    assert "appendfsync" in findings[-1].reason
    without_file = check_redis(ServerInfo(info={**GOOD_INFO, "aof_enabled": 0}))
    assert "appendfsync" not in without_file[-1].reason


def test_a_user_without_info_gets_the_only_finding_that_nothing_was_checked():
    finding = only_finding(ServerInfo(info={}))
    assert (finding.severity, finding.subject) == ("unknown", "INFO")


def test_findings_are_sorted_by_severity():
    server = server_info({"appendfsync": "everysec"}, role="slave", aof_last_write_status="err")
    severities = [finding.severity for finding in check_redis(server)]
    assert severities == sorted(severities, key=SEVERITIES.index)
    assert worst_severity(check_redis(server)) == "critical"


@pytest.mark.parametrize("version", ["7.2.4", "8.0", 8.2, "255.255.255"])
def test_later_versions_and_valkey_have_no_findings(version: Any):
    server = server_info(redis_version=version, valkey_version="8.0.1")
    assert check_redis(server) == []
    assert server.name == "Valkey 8.0.1"
