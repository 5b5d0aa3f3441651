"""Messages that Celery's own client writes: both protocols, each serializer and compression, options, canvases."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import redis
from celery import Celery, chain, chord, group
from celery.canvas import Signature

from tests.support.foreign_clients import COMPRESSIONS, MODEL, QUEUE, SERIALIZERS, TASK, register_missing_codecs

_ROWS = [[1.5, 0, 0]]
_PAST, _FUTURE = datetime(2020, 1, 31, 12, tzinfo=UTC), datetime(2090, 1, 31, 12, tzinfo=UTC)
_OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"priority": 5},
    {"eta": _PAST},
    {"eta": _FUTURE},
    {"expires": _PAST},
    {"expires": _FUTURE, "shadow": "another name", "headers": {"tenant": "a"}},
    {"ignore_result": True},
    {"time_limit": 5},
)


def collect_celery_messages(url: str) -> list[bytes]:
    """Return one message of each form: the same bytes in each call.

    `url` is the URL of a Redis in which nothing waits. Nothing is left there.
    """
    register_missing_codecs()
    numbers = itertools.count(1)
    with redis.Redis.from_url(url) as server:
        for protocol in (1, 2):
            # A backend in memory: the results are not read, and those of Redis would subscribe.
            backend = "cache+memory://"
            with Celery(broker=url, backend=backend, task_protocol=protocol, set_as_current=False) as app:
                for call, options in _calls(app):
                    call.apply_async(task_id=_job_id(next(numbers)), **options)
        lists = sorted(server.scan_iter(QUEUE + "*"))
        messages = [message for key in lists for message in reversed(server.lrange(key, 0, -1))]
        server.flushdb()
    return [_with_fixed_ids(message, number) for number, message in enumerate(messages)]


def _calls(app: Celery[Any]) -> Iterator[tuple[Signature[Any], dict[str, Any]]]:
    """Yield the calls of tasks, each with its options."""

    def predict() -> Signature[Any]:
        return app.signature(TASK, args=[MODEL, _ROWS], options={"queue": QUEUE})

    def other() -> Signature[Any]:
        return app.signature("other.task", options={"queue": "other"})

    for index, (serializer, compression) in enumerate(itertools.product(SERIALIZERS, COMPRESSIONS)):
        yield predict(), {"serializer": serializer, "compression": compression, **_OPTIONS[index % len(_OPTIONS)]}
    for options in _OPTIONS:
        named = {"model": MODEL, "instances": _ROWS}
        yield app.signature(TASK, kwargs=named, options={"queue": QUEUE}), options
    linked = predict()
    linked.link(other())
    linked.link_error(other())
    yield linked, {}
    yield chain(predict(), app.signature(TASK, kwargs={"model": MODEL}, options={"queue": QUEUE}), other()), {}
    yield group(predict(), predict()), {}
    yield chord([predict(), predict()], other()), {}
    yield app.signature(TASK, args=[MODEL, [[float("nan"), 0, 0]]], options={"queue": QUEUE}), {}


def _with_fixed_ids(message: bytes, number: int) -> bytes:
    """Replace what differs between two calls: the process, tags, and the ids that Celery made up."""
    envelope = json.loads(message)
    headers, properties = envelope["headers"], envelope["properties"]
    properties.update(delivery_tag=_job_id(number), reply_to=_job_id(0))
    if "origin" in headers:
        headers["origin"] = "gen1@host"
    if not str(headers.get("id", "")).endswith(_job_id(0)[8:]):
        for name in {"id", "root_id"} & headers.keys():
            headers[name] = _job_id(10_000 + number)
        properties["correlation_id"] = _job_id(10_000 + number)
    for name in ("group", "parent_id"):
        if headers.get(name):
            headers[name] = _job_id(20_000 + number)
    return json.dumps(envelope).encode()


def _job_id(number: int) -> str:
    return f"{number:08x}-0000-4000-8000-000000000000"
