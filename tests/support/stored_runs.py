"""Bulk runs as they are stored in Redis, in any state."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import redis

from headrace.bulk import make_run
from headrace.wire.keys import Keys


def store_run(
    server: redis.Redis,
    name: str = "nightly",
    state: str = "running",
    *,
    model: str = "churn",
    age_seconds: float = 100.0,
    keys: Keys = Keys(),  # noqa: B008  # immutable
    run: dict[str, Any] | None = None,
    **fields: Any,
) -> None:
    """Store a run that was submitted `age_seconds` ago. `run` are arguments of it, `fields` its further fields."""
    submitted_ms = int((time.time() - age_seconds) * 1000)
    arguments = {"input_": "in:2026-11/*.parquet", "output": "out:scores/2026-11", **(run or {})}
    if state in {"success", "failure", "cancelled"}:
        fields.setdefault("ended_ms", submitted_ms + 60_000)
    encoded = msgspec.json.encode(make_run(model, name=name, **arguments))
    stored = {"run": encoded, "state": state, "submitted_ms": submitted_ms, "round": 1, **fields}
    server.hset(keys.run(name), mapping=stored)
    server.zadd(keys.runs, {name: submitted_ms})
