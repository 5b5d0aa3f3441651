"""The app Flower looks through: `celery -A headrace_worker.dashboard flower`.

A plain Celery app, with stock transport: the dashboard claims nothing, loads no model, and shows queues by
the lists kombu lays out.
"""

from __future__ import annotations

from headrace import broker
from headrace.settings import load
from headrace_worker.settings import WorkerSettings

celery = broker.celery_app(load(WorkerSettings))
