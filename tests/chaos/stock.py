"""The control: the same jobs on stock Celery, with its documented settings for jobs that must not be lost.

They are late acknowledgement, rejection when a process is lost, a prefetch of one, and a visibility timeout of one
lease. Run it by `celery -A tests.chaos.stock worker`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery import Celery, signals

from tests.chaos.model import predict_rows

#: Environment variables: the Redis URL, the visibility timeout in seconds, and the file that marks a ready worker.
URL, TIMEOUT, READY = "CHAOS_URL", "CHAOS_VISIBILITY_TIMEOUT", "CHAOS_READY"
QUEUE, TASK = "chaos", "chaos.work"

app = Celery("chaos", broker=os.environ.get(URL), backend=os.environ.get(URL))
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_transport_options={"visibility_timeout": float(os.environ.get(TIMEOUT, "10"))},
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_default_queue=QUEUE,
    worker_prefetch_multiplier=1,
)


@app.task(name=TASK)
def run(rows: list[list[float]]) -> dict[str, Any]:
    return {"predictions": predict_rows(rows)}


@signals.worker_ready.connect(weak=False)
def _mark_ready(**_: Any) -> None:
    if file := os.environ.get(READY):
        Path(file).touch()
