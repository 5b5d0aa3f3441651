"""The app Flower looks through: `celery -A headrace_worker.dashboard flower`.

A plain Celery app, with stock transport: the dashboard claims nothing, loads no model, and shows queues by
the lists kombu lays out.
"""

from __future__ import annotations

from functools import partial

import flower.command
from flower.views import BaseHandler

from headrace.connection import connect
from headrace.errors import SettingError
from headrace.settings import load
from headrace_worker.dashboard.app import Dashboard
from headrace_worker.dashboard.settings import DashboardSettings

try:
    _settings = load(DashboardSettings)
    celery = connect.celery_app(_settings)
except SettingError as error:
    # Celery would show its usage and a traceback; SystemExit passes through it.
    raise SystemExit(f"headrace: {error}") from None


def _queues(handler: BaseHandler) -> list[str]:
    """The queue of every model served. Flower knows those of the workers there were when it last asked them."""
    dashboard: Dashboard = handler.application
    return dashboard.queues()


BaseHandler.get_active_queue_names = _queues
# The command makes what it finds under this name.
flower.command.Flower = partial(Dashboard, _settings)
