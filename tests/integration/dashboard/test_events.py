"""After any number of failed tries, Flower subscribes to the events of workers again at once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery

from headrace import Settings
from headrace.connection.celery import create_celery_app
from headrace.connection.keepalive import KEEPALIVE_OPTIONS
from headrace.connection.outage_log import OutageLog
from headrace_worker.dashboard import tasks
from headrace_worker.dashboard.tasks import JobEvents
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.waiting import wait_until


class Attempts:
    """A Celery app that counts the connections it opens."""

    def __init__(self, app: Celery[Any]) -> None:
        self._app, self.count = app, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._app, name)

    def connection(self) -> Any:
        self.count += 1
        return self._app.connection()


@pytest.fixture
def server() -> Iterator[EmbeddedRedis]:
    """A Redis that is not started."""
    server = EmbeddedRedis("--appendfsync", "no")
    yield server
    server.stop()


def subscribers(server: EmbeddedRedis) -> int:
    with redis.Redis.from_url(server.url) as client:
        return client.pubsub_numpat()


def test_flower_receives_events_again_after_many_failed_tries(
    server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tasks, "_PAUSE_SECONDS", (0.01, 0.02))
    app = create_celery_app(Settings(redis_url=server.url))
    attempts = Attempts(app)
    events = JobEvents(
        attempts,
        payloads=False,
        outages=OutageLog(logging.getLogger("outages")),
        io_loop=None,
        enable_events=False,
        max_tasks_in_memory=10,
        max_workers_in_memory=10,
    )
    threading.Thread.start(events)
    try:
        for _ in range(2):
            count = attempts.count
            wait_until(lambda count=count: attempts.count > count + 30)
            server.start()
            wait_until(lambda: subscribers(server) == 1, 10)
            server.kill()
    finally:
        events.stop()
        events.join(10)
        app.close()
    assert not events.is_alive()
    assert len(caplog.messages) <= 8  # for more than 60 failed tries


def test_flower_finds_a_half_open_connection() -> None:
    app = create_celery_app(Settings())
    with app.connection() as connection:
        options = connection.transport_options
    assert options["socket_keepalive"] is True
    assert options["socket_keepalive_options"] == KEEPALIVE_OPTIONS
    assert len(KEEPALIVE_OPTIONS) == 4  # on Linux
