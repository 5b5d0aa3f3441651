"""Flower's application with a mandatory login, read-only by default, and the pages of Headrace."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from flower.api.tasks import BaseTaskHandler
from flower.app import Flower, rewrite_handler
from flower.views import BaseHandler, monitor
from flower.views import tasks as task_views
from prometheus_client import CollectorRegistry, generate_latest
from tornado import ioloop, web
from tornado.template import Loader, Template

from headrace.catalog.published import list_models
from headrace.client import Session
from headrace.connection.outage_log import OutageLog, explainer
from headrace.dead_letters.operations import DeadLetterOperations
from headrace.errors import HeadraceError
from headrace.inspection.queues import queues_of
from headrace_worker.dashboard.charts import Charts
from headrace_worker.dashboard.dead_letter_groups import DeadLetterGroupList, ReplayDetail, ReplayForm
from headrace_worker.dashboard.dead_letter_pages import DeadLetterDetail, DeadLetterList
from headrace_worker.dashboard.job_page import JobDetail, JobOrTask, JobSearch
from headrace_worker.dashboard.last_hour import LastHour
from headrace_worker.dashboard.model_page import Models
from headrace_worker.dashboard.open_api import list_handlers
from headrace_worker.dashboard.queue_monitor import QueueMonitor
from headrace_worker.dashboard.queue_page import Queues
from headrace_worker.dashboard.replays import Replays
from headrace_worker.dashboard.rollout_page import ModelRollout
from headrace_worker.dashboard.run_pages import RunDetail, Runs
from headrace_worker.dashboard.settings import DashboardSettings
from headrace_worker.dashboard.stored_job import COLUMNS
from headrace_worker.dashboard.task_search import add_terms
from headrace_worker.dashboard.tasks import JobEvents, JobsDataTable
from headrace_worker.rollout.canary import CanaryLimits
from headrace_worker.telemetry.metrics_collector import LoopCollector

log = logging.getLogger("headrace.dashboard")

_TEMPLATES = Path(__file__).parent / "templates"

NO_LOGIN = (
    "headrace: Flower shows jobs to everybody who reaches it, so it needs a login: set HEADRACE_FLOWER_LOGIN "
    "to user:password (or HEADRACE_FLOWER_LOGIN_FILE to a file that holds it), or run `headrace flower --open` "
    "to serve without a login"
)


class Dashboard(Flower):  # type: ignore[misc]  # flower has no types
    """The application. `settings` are the dashboard's; `options` are Flower's own.

    Raises SystemExit when there is neither a login nor `flower_open`.
    """

    def __init__(self, settings: DashboardSettings, *, options: Any, capp: Any, **kwargs: Any) -> None:
        if settings.flower_login and not options.basic_auth:
            options.basic_auth = settings.flower_login.split(",")
        if not (options.basic_auth or options.auth or settings.flower_open):
            raise SystemExit(NO_LOGIN)
        options.read_only = options.read_only or not settings.flower_actions
        task_views.TASK_COLUMNS.update(COLUMNS)
        add_terms()
        loop = ioloop.IOLoop.current()
        self.last_hour = LastHour()
        events = JobEvents(
            capp,
            last_hour=self.last_hour,
            io_loop=loop,
            payloads=settings.flower_payloads,
            outages=OutageLog(log, explainer(settings)),
            db=options.db,
            persistent=options.persistent,
            state_save_interval=options.state_save_interval,
            enable_events=options.enable_events,
            max_workers_in_memory=options.max_workers,
            max_tasks_in_memory=options.max_tasks,
        )
        kwargs["template_loader"] = _Templates(kwargs["template_path"])
        super().__init__(options=options, capp=capp, events=events, io_loop=loop, **kwargs)
        self.session = Session(settings, check=False)
        self.dead_letters = DeadLetterOperations(
            settings, self.session.keys, self.session.contracts, self.session.job_keys
        )
        self.replays = Replays(self.session, self.dead_letters)
        self.queue_monitor = QueueMonitor(settings, self.last_hour)
        #: True without a login, which `flower_open` permits.
        self.is_open = settings.flower_open and not (options.basic_auth or options.auth)
        self.trace_url = settings.flower_trace_url
        self.canary_limits = CanaryLimits.from_settings(settings)
        handlers = [
            web.url(r"/dead-letters", DeadLetterList, name="dead_letters"),
            web.url(r"/dead-letters/(.+)", DeadLetterDetail, name="dead_letter"),
            web.url(r"/dead-letter-groups", DeadLetterGroupList, name="dead_letter_groups"),
            web.url(r"/replays", ReplayForm, name="replays"),
            web.url(r"/replays/([0-9]+)", ReplayDetail, name="replay"),
            web.url(r"/jobs", JobSearch, name="jobs"),
            web.url(r"/jobs/(.+)", JobDetail, name="job"),
            web.url(r"/task/(.+)", JobOrTask, name="task"),
            web.url(r"/tasks/datatable", JobsDataTable),
            web.url(r"/models", Models, name="models"),
            web.url(r"/models/(.+)", ModelRollout, name="model"),
            web.url(r"/queues", Queues, name="queues"),
            web.url(r"/broker", Broker, name="broker"),
            web.url(r"/runs", Runs, name="runs"),
            web.url(r"/runs/(.+)", RunDetail, name="run"),
            web.url(r"/api/dead-letters", DeadLetterList),
            web.url(r"/api/dead-letters/(.+)", DeadLetterDetail),
            web.url(r"/api/dead-letter-groups", DeadLetterGroupList),
            web.url(r"/api/replays/([0-9]+)", ReplayDetail),
            web.url(r"/api/jobs/(.+)", JobDetail),
            web.url(r"/api/models", Models),
            web.url(r"/api/models/(.+)", ModelRollout),
            web.url(r"/api/charts", Charts),
            web.url(r"/api/queues", Queues),
            web.url(r"/api/runs", Runs),
            web.url(r"/api/runs/(.+)", RunDetail),
            *list_handlers(),
            web.url(r"/metrics", Metrics),
            web.url(r"/healthcheck", Healthcheck),
        ]
        if not settings.flower_payloads:
            handlers.append(web.url(r"/api/task/result/(.+)", HiddenResult))
        if options.url_prefix:
            handlers = [rewrite_handler(handler, options.url_prefix) for handler in handlers]
        self.add_handlers(r".*", handlers)

    def start(self) -> None:
        """Serve until the process is stopped."""
        self.queue_monitor.start()
        super().start()

    def queue_names(self) -> list[str]:
        """Return the queues of every published model: of its jobs, and of its bulk runs."""
        return queues_of(self.session.run(list_models(self.session.keys)))


class Metrics(monitor.Metrics):  # type: ignore[misc]  # as above
    """Flower's metrics behind the login, since they name workers and tasks, and those of the queue monitor."""

    @web.authenticated
    async def get(self) -> None:
        """Answer with the metrics as text."""
        await super().get()
        registry = CollectorRegistry()
        registry.register(LoopCollector(self.application.queue_monitor.loop))
        self.write(generate_latest(registry))


class Healthcheck(monitor.Healthcheck):  # type: ignore[misc]  # as above
    """Flower's health check, which the queue monitor can fail."""

    async def get(self) -> None:
        """Answer OK, or 503 with the reason."""
        status = self.application.queue_monitor.loop.status()
        if status is None or status.problem is None:
            await super().get()
            return
        self.set_status(503)
        self.finish(status.problem)


class Broker(BaseHandler):  # type: ignore[misc]  # as above
    """The address of Flower's page of queues, which the Queues page replaces."""

    def get(self) -> None:
        """Redirect to the Queues page."""
        self.redirect(self.reverse_url("queues"))


class HiddenResult(BaseTaskHandler):  # type: ignore[misc]  # as above
    """The refusal at the address where Flower would return a job's prediction."""

    @web.authenticated
    def get(self, job: str) -> None:  # noqa: ARG002  # Tornado's signature
        """Answer 403."""
        raise web.HTTPError(403, "Payloads are not shown here: see `headrace result`, or HEADRACE_FLOWER_PAYLOADS")


#: Flower's templates that Headrace changes: by name, patterns and the file that replaces each.
_CHANGES = {
    "navbar.html": {
        # Queues, one of the added pages, takes the place of Broker.
        r"""<li class="nav-item">\s*<a class="nav-link\{% if active_tab == 'broker'.*?</li>""": "navigation.html",
        r'(?=<button class="navbar-toggler")': "job_search.html",
    },
    "base.html": {"(?=</body>)": "every_page.html"},
}


class _Templates(Loader):
    """The templates of Headrace and of Flower; its navigation bar gets a search, and the added pages."""

    def _create_template(self, name: str) -> Template:
        if (_TEMPLATES / name).is_file():
            return Template((_TEMPLATES / name).read_text(), name=name, loader=self)
        template = super()._create_template(name)
        if name not in _CHANGES:
            return template
        source = (Path(self.root) / name).read_text()
        for pattern, replacement in _CHANGES[name].items():
            match = re.search(pattern, source, re.DOTALL)
            if match is None:
                raise HeadraceError(f"Flower's template {name} has changed: {replacement} has no place in it")
            source = source[: match.start()] + (_TEMPLATES / replacement).read_text() + source[match.end() :]
        return Template(source, name=name, loader=self)
