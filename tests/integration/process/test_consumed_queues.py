"""Queues that a person takes out of a worker stay out: `cancel_consumer`, Flower's button, and the option -X."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from headrace import Client, Settings
from headrace.connection.celery import create_celery_app
from headrace.wire.queues import queue_name
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.claim_models import add_model, running_worker
from tests.support.connections import close_pools
from tests.support.waiting import wait_until

WORKER = "worker@test"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the store of the models `first` and `second`."""
    for model in ("first", "second"):
        add_model(tmp_path, model)
    return tmp_path


@pytest.fixture
def url() -> Iterator[str]:
    with EmbeddedRedis("--appendfsync", "no") as server:
        yield server.url


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, check=False) as client:
        yield client


@contextmanager
def celery_app(url: str) -> Iterator[Celery[Any]]:
    with create_celery_app(Settings(redis_url=url)) as app:
        yield app
        app.backend.client.connection_pool.disconnect()
        close_pools(app)


@contextmanager
def worker_and_app(folder: Path, url: str, *options: str) -> Iterator[Celery[Any]]:
    with (
        running_worker(*options, url=url, models=folder / "models", folder=folder),
        celery_app(url) as app,
    ):
        yield app


def consumed(app: Celery[Any]) -> set[str]:
    """Return the queues that the worker consumes from."""
    replies = wait_until(lambda: app.control.inspect(timeout=5, limit=1).active_queues())
    return {queue["name"] for queue in replies[WORKER]}


def control(app: Celery[Any], command: str, model: str) -> None:
    arguments = {"queue": queue_name(model)}
    (reply,) = app.control.broadcast(command, arguments=arguments, reply=True, timeout=10, limit=1)
    assert "ok" in reply[WORKER]


def follow_the_store(folder: Path, client: Client, model: str = "later") -> None:
    """Add a model, and wait until the worker serves it: it has followed the store once more."""
    add_model(folder, model)
    assert client.predict(model, [21, 0, 0], timeout=30).prediction == 42


def test_a_queue_that_a_person_cancelled_stays_out_until_it_is_added_again(
    folder: Path, url: str, client: Client
) -> None:
    with worker_and_app(folder, url) as app:
        assert client.predict("first", [1, 0, 0], timeout=30).prediction == 2
        control(app, "cancel_consumer", "first")
        waiting = client.submit("first", [2, 0, 0])
        follow_the_store(folder, client)
        assert consumed(app) == {queue_name("second"), queue_name("later")}
        assert waiting.status() == "waiting"
        control(app, "add_consumer", "first")
        assert waiting.result(timeout=30).prediction == 4
        follow_the_store(folder, client, "latest")
        assert consumed(app) == {queue_name(model) for model in ("first", "second", "later", "latest")}


def test_a_cancelled_queue_stays_out_when_the_worker_connects_again(
    folder: Path, url: str, client: Client
) -> None:
    with running_worker(url=url, models=folder / "models", folder=folder):
        with celery_app(url) as app:
            control(app, "cancel_consumer", "first")
        with redis.Redis.from_url(url) as server:
            for kind in ("normal", "pubsub"):
                server.client_kill_filter(_type=kind, skipme=True)
        follow_the_store(folder, client)
        with celery_app(url) as app:
            assert consumed(app) == {queue_name("second"), queue_name("later")}


def test_an_excluded_queue_stays_out_also_if_its_model_is_added_later(
    folder: Path, url: str, client: Client
) -> None:
    excluded = f"{queue_name('first')},{queue_name('added')}"
    with worker_and_app(folder, url, "-X", excluded) as app:
        add_model(folder, "added")
        follow_the_store(folder, client)
        assert consumed(app) == {queue_name("second"), queue_name("later")}


def test_a_cancelled_queue_is_consumed_again_after_a_restart_of_the_worker(
    folder: Path, url: str, client: Client
) -> None:
    with worker_and_app(folder, url) as app:
        control(app, "cancel_consumer", "first")
        waiting = client.submit("first", [2, 0, 0])
    with worker_and_app(folder, url):
        assert waiting.result(timeout=30).prediction == 4
