"""The Celery app of `headrace flower`: `celery -A headrace_worker.dashboard flower`.

It is a plain Celery app with kombu's own Redis transport. The dashboard claims no job and loads no model; it
counts queues from the lists that kombu keeps.

    settings           login, read-only mode and payloads
    app                Flower's application with the login check, the template folder and the added pages
    tasks              the store of tasks, and the rows of the Tasks page
    stored_job         what Flower stores of a task, and the columns that a job adds
    task_index         the values of a task by which it is searched and sorted
    task_search        the search of the Tasks page, with the terms model:, version:, error: and reason:
    cluster_broker     the lengths of queues in a Redis Cluster
    page               base class of the added pages: login, cross-site checks, HTML or JSON, error texts
    dead_letter_pages  Dead letters, and one dead letter
    dead_letter_groups dead letters by cause, and the replay of all of a cause or a filter
    replays            those replays, in threads, with their counts
    job_page           one job in any state, and the search box that leads to it
    model_page         Models
    rollouts           canaries and shadows beside production; promotion and rollback without a model store
    rollout_page       one model, with promote and roll back
    queue_page         Queues
    run_pages          Runs, and one run
    open_api           Flower's API that reads, without a login
    last_hour          jobs, failures, waits and depths of the last hour, for the charts
    charts             these as JSON
    queue_monitor      thread that counts worker events for the rates on the Queues page
    templates          HTML of the pages, and of their entries in Flower's navigation
"""

from __future__ import annotations

from functools import partial

import flower.command
import flower.views
from flower.views import BaseHandler

from headrace.connection.celery import create_celery_app
from headrace.errors import SettingError
from headrace.settings import is_cluster_url, load_settings
from headrace.terminal import escape_log_records
from headrace_worker.dashboard.app import Dashboard
from headrace_worker.dashboard.cluster_broker import ClusterBroker
from headrace_worker.dashboard.settings import DashboardSettings

# Flower's log has colours of its own, so its lines are escaped before they are coloured.
escape_log_records()
try:
    _settings = load_settings(DashboardSettings)
    celery = create_celery_app(_settings)
    # Flower consumes events and replies, and acknowledges none. kombu would look for lost messages, with EVAL.
    celery.conf.broker_transport_options["ack_emulation"] = False
except SettingError as error:
    # Celery would print its usage text and a traceback for any other exception.
    raise SystemExit(f"headrace: {error}") from None


def _active_queue_names(handler: BaseHandler) -> list[str]:
    """Return the queues of every published model: Flower lists only queues of the workers it last polled."""
    dashboard: Dashboard = handler.application
    return dashboard.queue_names()


BaseHandler.get_active_queue_names = _active_queue_names
if is_cluster_url(_settings.redis_url):
    # Flower would ask the one node that the broker's URL names.
    flower.views.Broker = partial(ClusterBroker, _settings)
# Flower's command creates the application from this module attribute.
flower.command.Flower = partial(Dashboard, _settings)
