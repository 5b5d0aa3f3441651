"""Whether a Redis can keep our promises is told from what it says of itself, each point with its remedy."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.connection.server_info import DIRECTIVES, ServerInfo
from headrace.doctor.redis import LEVELS, Finding, findings, worst

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


def facts(config: dict[str, str] | None = None, **info: Any) -> ServerInfo:
    """Those of a Redis that is as it should be, but for these."""
    settings = {name.replace("_", "-"): value for name, value in (config or {}).items()}
    return ServerInfo(info={**GOOD_INFO, **info}, config={**GOOD_CONFIG, **settings}, latency=0.2, clock=0.01)


def one(facts: ServerInfo, **place: Any) -> Finding:
    """The only finding there is."""
    (found,) = findings(facts, **place)
    return found


def replicas(count: int, state: str = "online") -> dict[str, Any]:
    return {"connected_slaves": count, **{f"slave{n}": {"state": state, "lag": 0} for n in range(count)}}


def test_a_redis_that_is_as_it_should_be_has_no_findings():
    assert findings(facts()) == []
    assert worst([]) is None
    assert set(GOOD_CONFIG) == set(DIRECTIVES)


@pytest.mark.parametrize(
    ("config", "info", "level", "directive", "remedy"),
    [
        ({}, {"redis_version": "6.0.16"}, "stops", "redis_version", "upgrade"),
        ({}, {"redis_version": 5.0}, "stops", "redis_version", "upgrade"),
        ({}, {"maxmemory": 10**9, "maxmemory_policy": "allkeys-lru"}, "stops", "maxmemory-policy", "noeviction"),
        ({}, {"maxmemory": 10**9, "maxmemory_policy": "volatile-ttl"}, "stops", "maxmemory-policy", "noeviction"),
        ({}, {"maxmemory_policy": "allkeys-lru"}, "weakens", "maxmemory-policy", "noeviction"),
        ({}, {"maxmemory": 2**20, "used_memory": 2**20}, "breaks", "maxmemory", "CONFIG SET maxmemory 2097152"),
        ({}, {"maxmemory": 100, "used_memory": 81}, "weakens", "maxmemory", "run more workers"),
        ({}, {"used_memory": 90, "total_system_memory": 100}, "weakens", "maxmemory", "CONFIG SET maxmemory 80"),
        ({}, {"connected_clients": 81, "maxclients": 100}, "weakens", "maxclients", "CONFIG SET maxclients 200"),
        ({}, {"aof_last_write_status": "err"}, "breaks", "aof_last_write_status", "disk"),
        ({}, {"aof_last_bgrewrite_status": "err"}, "weakens", "aof_last_bgrewrite_status", "disk"),
        ({"appendfsync": "everysec"}, {}, "weakens", "appendfsync", "CONFIG SET appendfsync always"),
        ({"appendfsync": "no"}, {}, "breaks", "appendfsync", "CONFIG SET appendfsync always"),
        (
            {"no_appendfsync_on_rewrite": "yes"},
            {},
            "weakens",
            "no-appendfsync-on-rewrite",
            "CONFIG SET no-appendfsync-on-rewrite no",
        ),
        (
            {"save": "3600 1"},
            {"rdb_last_bgsave_status": "err"},
            "breaks",
            "rdb_last_bgsave_status",
            "disk",
        ),
        ({}, {"role": "slave", "master_host": "db1", "master_port": 6380}, "stops", "role", "db1:6380"),
        ({}, {"loading": 1}, "breaks", "loading", "wait"),
        ({}, {"cluster_enabled": 1}, "stops", "cluster-enabled", "HEADRACE_KEY_PREFIX={headrace}:"),
        (
            {"min_replicas_to_write": "2"},
            replicas(1),
            "breaks",
            "min-replicas-to-write",
            "bring the replicas back",
        ),
        ({}, replicas(1), "weakens", "min-replicas-to-write", "CONFIG SET min-replicas-to-write 1"),
    ],
)
def test_what_stands_against_a_promise_is_found_with_its_remedy(
    config: dict[str, str], info: dict[str, Any], level: str, directive: str, remedy: str
):
    found = one(facts(config, **info))
    assert (found.level, found.directive) == (level, directive)
    assert remedy in found.fix
    assert all((found.actual, found.expected, found.why))
    assert str(found).startswith(f"{directive} is {found.actual}, should be {found.expected}: ")


@pytest.mark.parametrize(
    ("save", "lost"), [("", "every job"), ("3600 1", "last snapshot (`save 3600 1`)"), (None, "if it takes any")]
)
def test_without_an_append_only_file_it_says_what_a_restart_loses(save: str | None, lost: str):
    config = {name: value for name, value in {**GOOD_CONFIG, "save": save}.items() if value is not None}
    found = findings(ServerInfo(info={**GOOD_INFO, "aof_enabled": 0}, config=config))
    assert (found[0].level, found[0].directive) == ("breaks", "appendonly")
    assert lost in found[0].why


def test_a_failed_snapshot_does_not_matter_where_none_is_asked_for_or_writes_go_on():
    assert findings(facts({"save": ""}, rdb_last_bgsave_status="err")) == []
    going_on = {"save": "3600 1", "stop_writes_on_bgsave_error": "no"}
    assert findings(facts(going_on, rdb_last_bgsave_status="err")) == []


def test_a_replica_still_copying_is_none_to_count_on():
    assert one(facts({"min_replicas_to_write": "1"}, **replicas(1, "send_bulk"))).level == "breaks"
    assert findings(facts({"min_replicas_to_write": "1"}, **replicas(1))) == []


def test_a_key_prefix_with_a_hash_tag_makes_a_cluster_less_bad():
    assert one(facts(cluster_enabled=1), prefix="{shop}:").level == "breaks"
    assert one(facts(cluster_enabled=1), prefix="{}:").level == "stops"


def test_sentinel_without_a_replica_has_nothing_to_fail_over_to():
    assert one(facts(), by_sentinel=True).directive == "connected_slaves"
    assert findings(facts({"min_replicas_to_write": "1"}, **replicas(1)), by_sentinel=True) == []


def test_distance_and_clocks_are_found():
    far = ServerInfo(info=GOOD_INFO, config=GOOD_CONFIG, latency=35.0, clock=-3600)
    assert [found.directive for found in findings(far)] == ["latency", "clock"]
    assert "behind" in findings(far)[1].actual
    assert findings(ServerInfo(info=GOOD_INFO, config=GOOD_CONFIG, latency=None, clock=None)) == []


def test_a_user_who_may_not_read_the_configuration_hears_what_could_not_be_checked():
    found = findings(ServerInfo(info={**GOOD_INFO, "maxmemory": 1, "maxmemory_policy": "allkeys-lru"}))
    assert [(one.level, one.directive) for one in found if one.level != "breaks"] == [
        ("stops", "maxmemory-policy"),
        ("unknown", "CONFIG GET"),
    ]
    assert "appendfsync" in found[-1].why
    without_file = findings(ServerInfo(info={**GOOD_INFO, "aof_enabled": 0}))
    assert "appendfsync" not in without_file[-1].why


def test_a_user_who_may_ask_nothing_hears_that():
    found = one(ServerInfo(info={}))
    assert (found.level, found.directive) == ("unknown", "INFO")


def test_the_worst_comes_first():
    found = findings(facts({"appendfsync": "everysec"}, role="slave", aof_last_write_status="err"))
    levels = [one.level for one in found]
    assert levels == sorted(levels, key=LEVELS.index)
    assert worst(found) == "stops"


@pytest.mark.parametrize("version", ["7.2.4", "8.0", 8.2, "255.255.255"])
def test_later_versions_and_valkey_are_welcome(version: Any):
    assert findings(facts(redis_version=version, valkey_version="8.0.1")) == []
    assert facts(redis_version=version, valkey_version="8.0.1").name == "Valkey 8.0.1"
