"""A worker answers Celery's remote control, for `celery inspect` and Flower."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from sklearn.dummy import DummyClassifier
from skops import io as skops

from headrace import Client, Settings
from headrace.connection.celery import create_celery_app
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import start_worker
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store

PASSWORD = "open-sesame"


@pytest.fixture(scope="module")
def celery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Celery[Any]]:
    """A Celery app on a Redis with a password, where a worker has run one job."""
    folder = tmp_path_factory.mktemp("worker")
    skops.dump(DummyClassifier().fit([[0.0], [1.0]], [0, 0]), folder / "model.skops")
    (folder / "example.json").write_text("[[0.5]]")
    package(Store(folder / "models"), folder / "model.skops", name="plain", example=folder / "example.json")
    with EmbeddedRedis("--requirepass", PASSWORD) as redis:
        url = redis.url.replace("redis://", f"redis://:{PASSWORD}@")
        worker = start_worker(url, folder / "models", folder, concurrency=1)
        try:
            with Client(url) as client:
                client.predict("plain", [0.5], timeout=20)
            with create_celery_app(Settings(redis_url=url)) as app:
                yield app
        finally:
            worker.stop()


@pytest.mark.parametrize("command", ["ping", "stats", "conf", "registered", "active_queues", "active", "report"])
def test_a_worker_answers_without_secrets(celery: Celery[Any], command: str):
    replies = getattr(celery.control.inspect(timeout=20, limit=1), command)()
    assert replies is not None, f"no answer to {command}"
    assert PASSWORD not in json.dumps(replies)


def test_a_worker_counts_the_claims_it_ran(celery: Celery[Any]):
    (stats,) = celery.control.inspect(timeout=20, limit=1).stats().values()
    assert sum(stats["total"].values()) > 0
