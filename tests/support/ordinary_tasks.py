"""An ordinary Celery app whose messages our transport carries; a worker of it runs in its tests."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery, Task
from celery.exceptions import Reject

from headrace_worker import transport

URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:1/0")
app = Celery("ordinary", broker=URL, backend=URL, set_as_current=False)
app.conf.update(
    broker_transport=transport.ALIAS,
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
def third_time_lucky(self: Task[Any, Any]) -> int:
    if self.request.retries < 2:
        raise self.retry(countdown=0.1)
    return int(self.request.retries)


@app.task(bind=True)
def back_once(self: Task[Any, Any], key: str) -> str:
    """Reject the message the first time, to be queued again."""
    with app.pool.acquire() as connection:
        client = connection.default_channel.client
        if client.incr(key) == 1:
            raise Reject("again", requeue=True)
        return "ran again"


@app.task
def fail() -> None:
    raise ValueError("as it should")
