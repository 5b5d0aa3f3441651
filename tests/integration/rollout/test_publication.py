"""`headrace models publish`: contracts from the store to Redis, before any worker has run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import redis
from prometheus_client import CollectorRegistry, generate_latest

from headrace import Client, InvalidInput, UnknownModel
from headrace.catalog.aliases import Alias, move_alias
from headrace.catalog.published import fetch_model_names
from headrace.connection.commands import execute
from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.rollout.publication import Publication, publish_contracts
from headrace_worker.store.signing import Keyring
from headrace_worker.store.store import Store
from headrace_worker.telemetry.queue_metrics import QueueCollector
from headrace_worker.telemetry.worker_classes import parse_classes
from tests.support.claim_models import add_model, running_worker
from tests.support.command import headrace
from tests.support.keda import read_value
from tests.support.stored_versions import DATA, make_manifest

KEYS = Keys()


def latest(server: redis.Redis, model: str = "churn") -> bytes | None:
    stored: bytes | None = server.hget(KEYS.contracts(model), "latest")
    return stored


def add_versions(folder: Path, count: int, model: str = "churn") -> Store:
    store = Store(folder)
    for _ in range(count):
        store.add(make_manifest(model), DATA)
    return store


def test_a_fresh_redis_scales_from_zero(tmp_path: Path) -> None:
    models = add_model(tmp_path)
    with EmbeddedRedis() as fresh, Client(fresh.url) as client, redis.Redis.from_url(fresh.url) as server:
        with pytest.raises(UnknownModel, match="headrace models publish"):
            client.submit("doubling", [5, 0, 0])
        registry = CollectorRegistry()
        registry.register(QueueCollector(lambda: server, classes=parse_classes(["small=doubling"])))

        def read_backlog() -> float:
            return read_value(generate_latest(registry).decode(), 'headrace_class_backlog{class="small"}')

        assert read_backlog() == 0
        published = headrace("models", "publish", "--url", fresh.url, "--store", str(models))
        assert (published.returncode, published.stdout) == (0, "doubling@1  published\n")
        with pytest.raises(InvalidInput):
            client.submit("doubling", ["no number"])
        job = client.submit("doubling", [5, 0, 0])
        assert read_backlog() == 1
        with running_worker(url=fresh.url, models=models, folder=tmp_path):
            assert job.result(timeout=30).prediction == 10
            assert read_backlog() == 0


def test_without_aliases_the_newest_version_is_published(server: redis.Redis, tmp_path: Path) -> None:
    store = add_versions(tmp_path, 3)
    for _ in range(2):  # again: nothing changes
        assert list(publish_contracts(server, KEYS, store, ["churn"])) == [Publication(model="churn", version="3")]
        assert (latest(server), server.hlen(KEYS.contracts("churn"))) == (b"3", 2)
    assert fetch_model_names(server, KEYS) == ["churn"]


def test_the_versions_of_aliases_are_published_and_the_newest_only_without_production(
    server: redis.Redis, tmp_path: Path
) -> None:
    store = add_versions(tmp_path, 4)

    def point(alias: str, version: str) -> None:
        execute(server, move_alias(KEYS, "churn", alias, None, Alias(version=version), by="ann", reason=""))

    point("stable", "2")
    assert [item.version for item in publish_contracts(server, KEYS, store, ["churn"])] == ["2", "4"]
    server.delete(KEYS.contracts("churn"))
    point("production", "1")
    assert [item.version for item in publish_contracts(server, KEYS, store, ["churn"])] == ["1", "2"]
    assert latest(server) == b"2"
    point("trial", "9")
    (problem,) = (item for item in publish_contracts(server, KEYS, store, ["churn"]) if item.problem)
    assert (problem.version, problem.problem) == ("9", "churn has no version '9'; it has 1, 2, 3, 4")


def test_a_newest_version_that_must_not_serve_gives_way_to_an_older_one(
    server: redis.Redis, tmp_path: Path
) -> None:
    store = add_versions(tmp_path, 3)
    (tmp_path / "churn" / "3" / "manifest.json").write_text("{}")
    assert list(publish_contracts(server, KEYS, store, ["churn"])) == [Publication(model="churn", version="2")]


def test_an_unsigned_version_is_not_published_where_signatures_are_required(
    server: redis.Redis, tmp_path: Path
) -> None:
    add_versions(tmp_path, 1)
    strict = Store(tmp_path, keyring=Keyring(required=True))
    (item,) = publish_contracts(server, KEYS, strict, ["churn"])
    assert item.version is None
    assert "sign" in item.problem
    assert fetch_model_names(server, KEYS) == []


def test_one_model_that_cannot_be_published_stops_no_other(
    redis_url: str, server: redis.Redis, tmp_path: Path
) -> None:
    for model in ("broken", "churn", "fraud"):
        add_versions(tmp_path, 1, model)
    (tmp_path / "broken" / "1" / "manifest.json").write_text("{}")
    server.set(KEYS.contracts("churn"), "not ours")
    ran = headrace("models", "publish", "--url", redis_url, "--store", str(tmp_path), "--json")
    items = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [(item["model"], item["version"], bool(item["problem"])) for item in items] == [
        ("broken", None, True),
        ("churn", "1", True),
        ("fraud", "1", False),
    ]
    assert (ran.returncode, ran.stderr) == (1, "2 versions not published\n")
    assert fetch_model_names(server, KEYS) == ["fraud"]


def test_publish_tells_of_an_unknown_model_an_empty_store_and_a_redis_that_is_away(
    redis_url: str, tmp_path: Path
) -> None:
    empty = headrace("models", "publish", "--url", redis_url, "--store", str(tmp_path))
    assert (empty.returncode, empty.stdout, empty.stderr) == (0, "", f"no models in {tmp_path}\n")
    add_versions(tmp_path, 1)
    unknown = headrace("models", "publish", "chrun", "--url", redis_url, "--store", str(tmp_path))
    assert unknown.returncode == 1
    assert "did you mean 'churn'?" in unknown.stderr
    away = headrace("models", "publish", "--url", "redis://127.0.0.1:1/0", "--store", str(tmp_path))
    assert away.returncode == 1
    assert "cannot be reached" in away.stderr
