"""Messages of Celery clients in every serializer and compression, and a worker that answers them."""

from __future__ import annotations

import base64
import bz2
import json
import uuid
from typing import Any

import kombu.compression
import kombu.serialization
import msgspec
import redis
from celery import Celery
from celery.result import AsyncResult

MODEL, QUEUE = "doubling", "predict.doubling"
TASK = "headrace.predict"
SERIALIZERS = ("json", "pickle", "yaml", "msgpack")
COMPRESSIONS = (None, "zlib", "gzip", "bzip2", "lzma", "zstd", "brotli")
#: The forms that workers read.
READ_COMPRESSIONS = {None, "zlib", "gzip"}


def register_missing_codecs() -> None:
    """Register serializers and compressions under kombu's content types, where their packages are not installed.

    A worker refuses them by these content types, so the bytes do not matter.
    """
    try:
        kombu.serialization.dumps({}, serializer="msgpack")
    except kombu.serialization.SerializerNotInstalled:
        kombu.serialization.register(
            "msgpack",
            msgspec.msgpack.encode,  # type: ignore[arg-type]  # celery-types knows serializers of text only
            msgspec.msgpack.decode,
            content_type="application/x-msgpack",
            content_encoding="binary",
        )
    for name in ("zstd", "brotli"):
        try:
            kombu.compression.get_encoder(name)
        except KeyError:
            content_type = {"zstd": "application/zstd", "brotli": "application/x-brotli"}[name]
            kombu.compression.register(bz2.compress, bz2.decompress, content_type, aliases=[name])


def send(app: Celery[Any], number: float, **options: Any) -> AsyncResult[Any]:
    """Send a job that predicts twice the number."""
    return app.send_task(TASK, args=[MODEL, [[number, 0, 0]]], **{"queue": QUEUE, **options})


def gocelery_message(number: float, task_id: str | None = None, **changes: Any) -> bytes:
    """Return a message as gocelery writes it (`message.go`): protocol 1, its envelope without headers."""
    call = {
        "id": task_id or str(uuid.uuid4()),
        "task": TASK,
        "args": [MODEL, [[number, 0, 0]]],
        "kwargs": None,
        "retries": 0,
        "eta": None,
        "expires": None,
        **changes,
    }
    envelope = {
        "body": base64.b64encode(json.dumps(call).encode()).decode(),
        "content-type": "application/json",
        "properties": {
            "body_encoding": "base64",
            "correlation_id": str(uuid.uuid4()),
            "reply_to": str(uuid.uuid4()),
            "delivery_info": {"priority": 0, "routing_key": "celery", "exchange": "celery"},
            "delivery_mode": 2,
            "delivery_tag": str(uuid.uuid4()),
        },
        "content-encoding": "utf-8",
    }
    return json.dumps(envelope, separators=(",", ":")).encode()


def is_dead_letter(server: redis.Redis, job: str) -> bool:
    """Return whether a dead letter bears the id of a job."""
    return bool(server.hexists("headrace:dead", job))
