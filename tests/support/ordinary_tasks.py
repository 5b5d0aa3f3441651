"""A Celery app with ordinary tasks, on Headrace's transport. Tests start a worker of it."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery, Task
from celery.exceptions import Reject

from headrace_worker.transport import ALIAS

URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:1/0")
app = Celery("ordinary", broker=URL, backend=URL, set_as_current=False)
app.conf.update(
    broker_transport=ALIAS,
    broker_transport_options={"lease_seconds": 2.0},
    task_default_queue="ordinary",
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
)


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task(bind=True, max_retries=3)
def succeed_at_third_try(self: Task[Any, Any]) -> int:
    """Retry twice, then return the number of retries."""
    if self.request.retries < 2:
        raise self.retry(countdown=0.1)
    return int(self.request.retries)


@app.task(bind=True)
def reject_once(self: Task[Any, Any], key: str) -> str:
    """Reject the message the first time, to be requeued. `key` counts the runs."""
    with app.pool.acquire() as connection:
        client = connection.default_channel.client
        if client.incr(key) == 1:
            raise Reject("again", requeue=True)
        return "ran again"


@app.task
def fail() -> None:
    raise ValueError("expected")
