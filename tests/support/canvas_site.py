"""A worker of Headrace and a plain Celery worker on one Redis, for jobs in a canvas."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import msgspec
import numpy as np
import redis
from celery.canvas import Signature

from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import Child
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store
from tests.support import ROOT, canvas_tasks
from tests.support.claim_models import NOTHING, Doubling, add_model, running_worker
from tests.support.waiting import wait_until

LEASE_SECONDS = 2


class DoublingRows(Doubling):
    """Predicts rows that the next model of a chain takes."""

    def predict(self, rows: Any) -> Any:
        doubled = super().predict(rows)
        return np.stack([doubled, 0 * doubled, 0 * doubled], axis=1)


class CanvasSite(msgspec.Struct, frozen=True):
    """A Redis with a model store, and a client's app."""

    redis: EmbeddedRedis
    folder: Path

    @property
    def server(self) -> redis.Redis:
        return redis.Redis.from_url(self.redis.url, decode_responses=True)

    @contextlib.contextmanager
    def headrace_worker(self, *options: str, name: str = "worker", **settings: str) -> Iterator[Child]:
        settings = {"HEADRACE_LEASE": str(LEASE_SECONDS), **settings}
        with running_worker(
            *options, url=self.redis.url, models=self.folder / "models", folder=self.folder, name=name, **settings
        ) as worker:
            yield worker

    @contextlib.contextmanager
    def ordinary_worker(self) -> Iterator[Child]:
        command = ["celery", "-A", "tests.support.canvas_tasks", "worker", "-Q", canvas_tasks.QUEUE]
        options = [
            "--concurrency",
            "2",
            "--hostname",
            "ordinary@test",
            "--without-mingle",
            "--without-gossip",
            "-l",
            "INFO",
        ]
        environ = {"REDIS_URL": self.redis.url, "PYTHONPATH": str(ROOT)}
        child = Child("ordinary", [*command, *options], environ, self.folder / "ordinary.log")
        try:
            wait_until(lambda: child.check() or "ready." in child.log.read_text(), 60)
            yield child
        finally:
            child.stop()

    def recorded(self, key: str) -> list[Any]:
        """Return what the task `record` was called with."""
        with self.server as server:
            return [json.loads(line) for line in server.lrange(key, 0, -1)]  # type: ignore[union-attr]


@contextlib.contextmanager
def canvas_site(folder: Path) -> Iterator[CanvasSite]:
    """Return a site with models, and without workers."""
    add_model(folder, "doubling", max_batch_instances=64)
    add_model(folder, "patient", max_attempts=100, retry_delay=0.1, retry_delay_max=0.3)
    add_model(folder, "hasty", max_attempts=2, retry_delay=0)
    joblib.dump(DoublingRows().fit([[0.0, 0.0, 0.0]]), folder / "rows.joblib")
    file, example = folder / "rows.joblib", folder / "doubling.json"
    package(Store(folder / "models"), file, name="rows", example=example, trust_pickle=True)
    with EmbeddedRedis("--appendfsync", "no") as server:
        app = canvas_tasks.app
        app.conf.update(broker_url=server.url, result_backend=server.url)
        try:
            yield CanvasSite(server, folder)
        finally:
            app.close()


def predict(*args: Any, immutable: bool = False, **kwargs: Any) -> Signature[Any]:
    """Return the signature of a job."""
    return canvas_tasks.app.signature("headrace.predict", args=args, kwargs=kwargs, immutable=immutable)


def row(value: float, action: int = NOTHING, seconds: float = 0.0) -> list[float]:
    """Return a row for `doubling` and `rows`."""
    return [value, action, seconds]
