"""Mutated messages go through claims with all parts of a pool process: real scripts, model and listeners.

Each message ends in an outcome under its id, as a dead letter, or waits until it is due.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import redis
import skops.io
from celery import Celery
from sklearn.linear_model import LinearRegression

from headrace.wire.attempts import encode_delayed
from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.packaging.package import package
from headrace_worker.process.service import WorkerService
from headrace_worker.settings import WorkerSettings
from headrace_worker.store.store import Store
from headrace_worker.transport.claims import Claim, ClaimLimits
from headrace_worker.transport.leases import Leases
from tests.fuzz import corpus
from tests.fuzz.celery_messages import collect_celery_messages
from tests.fuzz.command_lines import command_target
from tests.fuzz.requests import request_target
from tests.fuzz.served import Served
from tests.fuzz.target import Target
from tests.support.foreign_clients import MODEL, QUEUE

KEYS = Keys()
#: Claims after which nothing waits any more: a job, and what follows it in its canvas.
_MAX_CLAIMS = 12
#: Bytes of a message in which its id is searched for, wherever it is.
_SEARCHED_BYTES = 64 * 1024


class ClaimRunning:
    """A pool process in this process, its Redis, and checks of what its claims leave behind."""

    def __init__(self, url: str, server: redis.Redis, models: Path, app: Celery) -> None:
        service = WorkerService(WorkerSettings(redis_url=url, models=str(models)))
        service.registry.preload()
        self._runner = service.pool_child.get_runner(app, "fuzz@host")
        self._server, self._leases = server, Leases(server, KEYS)
        self._numbers = itertools.count(1)

    def run_message(self, data: bytes) -> None:
        """Run a message that a client has put into the list of a priority."""
        self._run(data, lambda: self._server.lpush(KEYS.lists(QUEUE)[len(data) % 4], data))
        self._check_id(data)

    def run_retried(self, data: bytes) -> None:
        """Run a message with a history, in one of the lists that only workers write, or as delayed."""
        sources = KEYS.sources(QUEUE)
        if data[:1].isdigit() or len(data) % 5 == 0:
            self._run(data, lambda: self._server.zadd(KEYS.delayed(QUEUE), {data: 0}))
        else:
            self._run(data, lambda: self._server.lpush(sources[len(data) % len(sources)], data))

    def run_waiting(self) -> bool:
        """Run the jobs that wait or are due, and what follows them. Return False if there was none."""
        self._leases.move_due(QUEUE)
        limits = [ClaimLimits(queue=QUEUE, jobs=8, bytes=10**6)]
        for number in range(_MAX_CLAIMS):
            claim = self._leases.claim(f"fuzz/{next(self._numbers)}", limits, lease_ms=60_000)
            if not isinstance(claim, Claim):
                return number > 0
            self._runner.run(claim)
        return True

    def _run(self, data: bytes, push: Callable[[], object]) -> None:
        self._server.flushdb()
        push()
        self.run_waiting()
        waiting = [key for key in KEYS.sources(QUEUE) if self._server.exists(key)]
        assert not waiting, f"messages still wait in {waiting}"
        assert not self._server.exists(KEYS.leases), "a lease is left"
        assert self._results() or self._server.hlen(KEYS.dead) or self._delayed(), "the message vanished"

    def _check_id(self, data: bytes) -> None:
        ids = _read_ids(data)
        if ids and not ids & self._results():
            assert any(job.encode() in member for job in ids for member in self._delayed()), f"no outcome of {ids}"

    def _results(self) -> set[str]:
        prefix = KEYS.result("")
        return {key.decode().removeprefix(prefix) for key in self._server.scan_iter(prefix + "*", count=1000)}

    def _delayed(self) -> list[bytes]:
        return self._server.zrange(KEYS.delayed(QUEUE), 0, -1)


def _read_ids(data: bytes) -> set[str]:
    """Return the ids of a message that anybody can read: it is JSON, and its ids are plain text."""
    try:
        message = json.loads(data)
        ids = {message["headers"]["id"], message["properties"]["correlation_id"]}
    except (ValueError, RecursionError, LookupError, TypeError):
        return set()
    is_plain = all(isinstance(job, str) and job.isascii() and job.replace("-", "").isalnum() for job in ids)
    # In protocol 1 the body has an id, too.
    has_task = "task" in message["headers"] and "body" in message
    return ids if is_plain and has_task and len(data) < _SEARCHED_BYTES and max(map(len, ids)) < 256 else set()


@contextlib.contextmanager
def served_targets(folder: Path) -> Iterator[list[Target]]:
    """Start a Redis and a pool process with a model in `folder`, and return the targets that need them."""
    model = LinearRegression().fit([[0.0, 0, 0], [1, 0, 0], [2, 1, 0]], [0, 2, 4])
    skops.io.dump(model, folder / "model.skops")
    (folder / "example.json").write_text("[[1, 0, 0]]")
    package(Store(folder / "models"), folder / "model.skops", name=MODEL, example=folder / "example.json")
    with (
        EmbeddedRedis("--appendfsync", "no", "--save", "") as embedded,
        redis.Redis.from_url(embedded.url) as server,
        Celery(broker=embedded.url, backend=embedded.url, set_as_current=False) as app,
    ):
        messages = [*corpus.messages(), *collect_celery_messages(embedded.url)]
        retried = corpus.queued_messages()
        delayed = [encode_delayed(number % 9, message) for number, message in enumerate(retried)]
        running = ClaimRunning(embedded.url, server, folder / "models", app)
        served = Served(embedded.url, server, folder, running.run_waiting)
        yield [
            Target(name="a claimed message", inputs=messages, run=running.run_message, count=5_000),
            Target(name="a claimed retry", inputs=[*retried, *delayed], run=running.run_retried, count=2_000),
            request_target(served),
            command_target(served),
        ]
