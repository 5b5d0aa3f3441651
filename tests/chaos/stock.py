"""The control: the same work on stock Celery, set up as its documentation advises for jobs that must not be lost.

Late acknowledgement, rejection when a process is lost, one message at a time, and a visibility timeout as long as
our lease. `celery -A tests.chaos.stock worker`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery import Celery, signals

from tests.chaos.model import work

#: Environment: the Redis URL, how long a message may stay unacknowledged, and the file that says "ready".
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
    return {"predictions": work(rows)}


@signals.worker_ready.connect(weak=False)
def _tell(**_: Any) -> None:
    if file := os.environ.get(READY):
        Path(file).touch()
