"""The app Flower looks through: `celery -A headrace_worker.dashboard flower`.

A plain Celery app, with stock transport: the dashboard claims nothing, loads no model, and shows queues by
the lists kombu lays out.
"""

from __future__ import annotations

from flower.views import BaseHandler

from headrace import broker, contracts
from headrace.errors import SettingError
from headrace.queues import Keys, queue_name
from headrace.settings import load
from headrace_worker.settings import WorkerSettings

try:
    _settings = load(WorkerSettings)
    celery = broker.celery_app(_settings)
    _redis = broker.connect(_settings)
except SettingError as error:
    # Celery would show its usage and a traceback; SystemExit passes through it.
    raise SystemExit(f"headrace: {error}") from None


def _queues(_: BaseHandler) -> list[str]:
    """The queue of every model served. Flower knows those of the workers there were when it last asked them."""
    return [queue_name(model) for model in contracts.names(_redis, Keys(_settings.key_prefix))]


BaseHandler.get_active_queue_names = _queues
