"""A plain Celery app with ordinary tasks that stand before, beside and after jobs in a canvas."""

from __future__ import annotations

import json
import os
from typing import Any

import redis
from celery import Celery

import headrace

URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:1/0")
#: The queue of the tasks: the default of Celery apps.
QUEUE = "celery"
app = Celery("canvas", broker=URL, backend=URL, set_as_current=False)
app.conf.update(
    task_routes=(headrace.route_job,),
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
)


@app.task
def rows(*values: float) -> list[list[float]]:
    """Return a row for each value, as the models of the tests take them."""
    return [[value, 0, 0] for value in values]


@app.task
def fail(*_: Any) -> None:
    """Raise ValueError."""
    raise ValueError("expected")


@app.task
def fail_own(*_: Any) -> None:
    """Raise an error whose module the Headrace worker of the tests, which imports this module, does not have."""
    from tests.support.canvas_errors import OwnError

    raise OwnError("expected")


@app.task
def predictions(result: dict[str, Any]) -> list[Any]:
    """Return the predictions of a job."""
    values: list[Any] = result["predictions"]
    return values


@app.task
def total(results: list[Any]) -> float:
    """Return the sum of the first predictions of jobs."""
    return float(sum(result["predictions"][0] for result in results))


@app.task
def kind(value: Any) -> str:
    """Return the name of the type of a value."""
    return type(value).__name__


@app.task
def record(result: Any, key: str) -> Any:
    """Append what the task gets to a list in Redis, and return it."""
    with redis.Redis.from_url(URL) as client:
        client.rpush(key, json.dumps(result))
    return result
