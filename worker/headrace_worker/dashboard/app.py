"""Flower with what Headrace adds: a login, no changes unless they are asked for, and pages of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flower.api.tasks import BaseTaskHandler
from flower.app import Flower, rewrite_handler
from flower.views import monitor
from flower.views import tasks as task_views
from tornado import ioloop, web
from tornado.template import Loader, Template

from headrace.catalog import published
from headrace.client import Session
from headrace.dead_letters.operations import DeadLetterOperations
from headrace.wire.keys import queue_name
from headrace_worker.dashboard import pages
from headrace_worker.dashboard.jobs import COLUMNS, JobEvents
from headrace_worker.dashboard.lookout import QueueMonitor
from headrace_worker.dashboard.settings import DashboardSettings

_TEMPLATES = Path(__file__).parent / "templates"

NO_LOGIN = (
    "headrace: Flower shows jobs to everybody who reaches it, so it wants a login: set HEADRACE_FLOWER_LOGIN "
    "to user:password (or HEADRACE_FLOWER_LOGIN_FILE to a file with it), or `headrace flower --open` to do without"
)


class Dashboard(Flower):  # type: ignore[misc]  # flower has no types
    """The application. `settings` are the dashboard's; `options` are Flower's own."""

    def __init__(self, settings: DashboardSettings, *, options: Any, capp: Any, **kwargs: Any) -> None:
        if settings.flower_login and not options.basic_auth:
            options.basic_auth = settings.flower_login.split(",")
        if not (options.basic_auth or options.auth or settings.flower_open):
            raise SystemExit(NO_LOGIN)
        options.read_only = options.read_only or not settings.flower_actions
        task_views.TASK_COLUMNS.update(COLUMNS)
        loop = ioloop.IOLoop.current()
        events = JobEvents(
            capp,
            io_loop=loop,
            payloads=settings.flower_payloads,
            db=options.db,
            persistent=options.persistent,
            state_save_interval=options.state_save_interval,
            enable_events=options.enable_events,
            max_workers_in_memory=options.max_workers,
            max_tasks_in_memory=options.max_tasks,
        )
        kwargs["template_loader"] = _Templates(kwargs["template_path"])
        super().__init__(options=options, capp=capp, events=events, io_loop=loop, **kwargs)
        self.headrace = settings
        self.link = Session(settings, check=False)
        self.letters = DeadLetterOperations(settings, self.link.keys, self.link.contracts, self.link.job_keys)
        self.lookout = QueueMonitor(settings)
        ours = [*pages.HANDLERS, web.url(r"/metrics", Metrics)]
        if not settings.flower_payloads:
            ours.append(web.url(r"/api/task/result/(.+)", NoResult))
        if options.url_prefix:
            ours = [rewrite_handler(handler, options.url_prefix) for handler in ours]
        self.add_handlers(r".*", ours)

    def start(self) -> None:
        """Run until it is stopped."""
        self.lookout.start()
        super().start()

    def queues(self) -> list[str]:
        """The queue of every model served."""
        return [queue_name(model) for model in self.link.run(published.list_models(self.link.keys))]


class Metrics(monitor.Metrics):  # type: ignore[misc]  # as above
    """Flower's own metrics, which name workers and tasks: for those who may look."""

    get = web.authenticated(monitor.Metrics.get)


class NoResult(BaseTaskHandler):  # type: ignore[misc]  # as above
    """Where Flower would tell what was predicted."""

    @web.authenticated
    def get(self, job: str) -> None:  # noqa: ARG002  # Tornado's signature
        """Refuse."""
        raise web.HTTPError(403, "Payloads are not shown here: see `headrace result`, or HEADRACE_FLOWER_PAYLOADS")


class _Templates(Loader):
    """Flower's templates, and ours beside them; its navigation names our pages too."""

    def _create_template(self, name: str) -> Template:
        if (_TEMPLATES / name).is_file():
            return Template((_TEMPLATES / name).read_text(), name=name, loader=self)
        template = super()._create_template(name)
        if name != "navbar.html":
            return template
        source = (Path(self.root) / name).read_text()
        entries = (_TEMPLATES / "entries.html").read_text()
        return Template(source.replace("</ul>", f"{entries}</ul>", 1), name=name, loader=self)
