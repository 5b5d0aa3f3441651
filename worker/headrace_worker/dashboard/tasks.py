"""The store of the tasks that Flower receives in Celery's events, and the rows of the Tasks page."""

from __future__ import annotations

import random
import sys
import threading
from typing import Any

from celery.events.receiver import EventReceiver
from flower.events import Events, EventsState
from flower.views.tasks import TasksDataTable

from headrace.connection.outage_log import OutageLog
from headrace.wire.bulk import BULK_TASK
from headrace.wire.queues import TASK
from headrace_worker.dashboard.last_hour import LastHour, draw_line, find_largest
from headrace_worker.dashboard.stored_job import DashboardJob
from headrace_worker.dashboard.task_search import JobSearchEngine

#: The name of the event receiver in the log of outages, and the seconds between two of its tries.
_COMPONENT, _PAUSE_SECONDS = "events", (1.0, 2.0)
#: Celery's list of events in the order of time needs two at least.
_EVENTS_IN_ORDER = 2
_PAYLOAD_FIELDS = ("args", "kwargs", "result")
#: Event fields whose text is the same in many tasks.
_REPEATED_FIELDS = ("name", "args", "kwargs", "result", "hostname", "model", "version", "reason")


class _NoTasks(dict[str, Any]):
    """A mapping of sets of tasks that stay empty."""

    def __getitem__(self, name: str) -> _NoTasks:
        return self

    def add(self, task: Any) -> None:
        """Drop the task."""


class JobsState(EventsState):  # type: ignore[misc]  # flower has no types
    """Flower's store of tasks. It drops arguments and results of ordinary tasks unless `payloads` is set."""

    Task = DashboardJob
    payloads = False
    #: Counts the jobs for the charts; None counts none.
    last_hour: LastHour | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.search_engine = JobSearchEngine()
        self.search_engine.rebuild(self.tasks.items())
        # Celery keeps four entries for each task, ordered by time, and sets of tasks by type and worker. Flower
        # reads none of them.
        del self._taskheap[_EVENTS_IN_ORDER:]
        self.heap_multiplier = _EVENTS_IN_ORDER / self.max_tasks_in_memory
        self.tasks_by_type = self.tasks_by_worker = _NoTasks()

    def event(self, event: dict[str, Any]) -> None:
        """Store an event. Events of jobs need no change: workers send a description in place of the payload."""
        if not self.payloads and event["type"].startswith("task-"):
            stored = self.tasks.get(event.get("uuid"))
            if (event.get("name") or getattr(stored, "name", None)) not in {TASK, BULK_TASK}:
                event = {name: value for name, value in event.items() if name not in _PAYLOAD_FIELDS}
        super().event(_with_shared_texts(event))
        if self.last_hour is not None and event.get("model"):
            self._count(event)

    def _count(self, event: dict[str, Any]) -> None:
        """Count a job in the charts of the last hour. A bulk job is none of its model's other jobs."""
        last_hour, job = self.last_hour, self.tasks.get(event.get("uuid"))
        if last_hour is None or job is None or job.name != TASK:
            return
        model, version = str(event["model"]), event.get("version")
        if event["type"] == "task-received" and job.wait is not None:
            last_hour.record_wait(model, version, job.wait)
        elif event["type"] in {"task-succeeded", "task-failed"}:
            last_hour.record_finished(model, version, failed=event["type"] == "task-failed")


def _with_shared_texts(event: dict[str, Any]) -> dict[str, Any]:
    """Return the event with repeated texts interned: memory limits how many tasks Flower can store."""
    shared = {name: sys.intern(event[name]) for name in _REPEATED_FIELDS if type(event.get(name)) is str}
    return event | shared


class JobsDataTable(TasksDataTable):  # type: ignore[misc]  # as above
    """The rows of the Tasks page: a wait is sorted as a number, and shown with its unit."""

    def write(self, chunk: Any) -> None:
        """Answer with the rows."""
        for row in chunk.get("data", ()) if isinstance(chunk, dict) else ():
            if row.get("wait") is not None:
                row["wait"] = format_wait(row["wait"])
        super().write(chunk)


def format_wait(seconds: float) -> str:
    """Return a wait with its unit. A no-break space keeps both on one line of a narrow column."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}\N{NO-BREAK SPACE}ms"
    return f"{seconds:,.1f}\N{NO-BREAK SPACE}s"


def format_milliseconds(seconds: float) -> str:
    """Return a duration in milliseconds, with three digits."""
    return f"{1000 * seconds:.3g}\N{NO-BREAK SPACE}ms"


#: The functions of the templates `last_hour.html` and `rollout_table.html`.
CHART_FUNCTIONS = {
    "format_wait": format_wait,
    "format_milliseconds": format_milliseconds,
    "draw_line": draw_line,
    "find_largest": find_largest,
}


class JobEvents(Events):  # type: ignore[misc]  # as above
    """Flower's event receiver, storing into a JobsState. `outages` is the log of the outages of Redis.

    After an outage it subscribes again within 2 s. Flower's own receiver doubles its pauses without a bound: after
    20 minutes without Redis it shows no job for up to 17 minutes more.
    """

    def __init__(
        self,
        capp: Any,
        *,
        payloads: bool,
        outages: OutageLog,
        last_hour: LastHour | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(capp, **kwargs)
        self._outages, self._stopped = outages, threading.Event()
        self.state: Any
        if not isinstance(self.state, JobsState):
            limits = ("max_tasks_in_memory", "max_workers_in_memory")
            self.state = JobsState(**{name: kwargs[name] for name in limits})
        self.state.payloads, self.state.last_hour = payloads, last_hour

    def run(self) -> None:
        """Receive events until Flower ends. What fails is repeated after a pause of 1 to 2 s by chance."""
        while not self._stopped.is_set():
            try:
                self._receive()
            except Exception as error:  # noqa: BLE001  # a damaged event must not end the thread
                self._outages.failed(_COMPONENT, error)
            self._stopped.wait(random.uniform(*_PAUSE_SECONDS))  # noqa: S311  # spreads tries, no secret

    def _receive(self) -> None:
        with self.capp.connection() as connection:
            connection.ensure_connection(max_retries=0, reraise_as_library_errors=False)
            receiver = EventReceiver(connection, handlers={"*": self.on_event}, app=self.capp)
            self._outages.succeeded(_COMPONENT)
            receiver.capture(limit=None, timeout=None, wakeup=True)

    def stop(self) -> None:
        """Stop receiving once the connection ends."""
        self._stopped.set()
        super().stop()
