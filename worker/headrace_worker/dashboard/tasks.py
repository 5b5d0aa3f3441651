"""The tasks that Flower stores from Celery's events, and the columns that a job adds to the Tasks page."""

from __future__ import annotations

import random
import sys
import threading
from typing import Any

from celery import states
from celery.events.receiver import EventReceiver
from celery.events.state import Task
from flower.events import Events, EventsState
from flower.views.tasks import TasksDataTable

from headrace.connection.outage_log import OutageLog
from headrace.wire.bulk import BULK_TASK
from headrace.wire.keys import TASK
from headrace.wire.message import submission_time
from headrace_worker.dashboard.last_hour import LastHour, draw_line, find_largest
from headrace_worker.dashboard.task_search import JobSearchEngine

#: Columns that Headrace adds to the Tasks page: field of DashboardJob -> title.
COLUMNS = {
    "model": "Model",
    "version": "Version",
    "instances": "Instances",
    "attempts": "Attempts",
    "wait": "Wait",
    "reason": "Reason",
}

#: The name of the event receiver in the log of outages, and the seconds between two of its tries.
_COMPONENT, _PAUSE_SECONDS = "events", (1.0, 2.0)
_PAYLOAD_FIELDS = ("args", "kwargs", "result")
#: Event fields whose text is the same in many tasks.
_REPEATED_FIELDS = ("name", "args", "kwargs", "result", "hostname", "model", "version", "reason")


class DashboardJob(Task):
    """A task as Flower shows it. The fields of a job are derived when they are read, so they take no memory."""

    _fields = (*Task._fields, *COLUMNS)  # type: ignore[attr-defined]  # celery has no types

    @property
    def _description(self) -> str:
        """The worker's description of the job, `churn@3, 2 instances`; "" for an ordinary task."""
        if self.name != TASK:
            return ""
        return str(self.result or self.args or "")

    @property
    def model(self) -> str | None:
        """The model; None for an ordinary task."""
        return self._event_field("model")

    @property
    def version(self) -> str | None:
        """The version that runs or ran; None where none did."""
        return self._event_field("version")

    def _event_field(self, name: str) -> str | None:
        """Return a field of the job's last event that has it: Celery stores each in the instance."""
        value = self.__dict__.get(name)
        return str(value) if value else None

    @property
    def reason(self) -> str | None:
        """The reason of a failure; None for any other job."""
        return self._event_field("reason") if self.state == states.FAILURE else None

    @property
    def instances(self) -> int | None:
        """The number of instances of the job; None for an ordinary task."""
        count = self._description.partition(", ")[2].partition(" ")[0]
        return int(count) if count.isdecimal() else None

    @property
    def attempts(self) -> int | None:
        """The number of runs so far, the present one included; None for an ordinary task.

        They count from the submission, or from the last replay. A claim that ran nothing is none.
        """
        if self.name not in {TASK, BULK_TASK}:
            return None
        runs = self.__dict__.get("runs")
        if type(runs) is int:
            return runs
        return None if self.retries is None else self.retries + 1

    @property
    def wait(self) -> float | None:
        """The seconds from submission, replay or last attempt to a worker; None where nothing tells since when."""
        if self.name != TASK or self.received is None:
            return None
        since = self.__dict__.get("waiting_since")
        if not isinstance(since, int | float):
            submitted = submission_time(str(self.uuid))
            if submitted is None:
                return None
            since = submitted.timestamp()
        return round(max(0.0, float(self.received - since)), 6)


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
    if event.get("root_id") == event.get("uuid") and "root_id" in event:
        shared["root_id"] = event["uuid"]
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


#: The functions of the template `last_hour.html`.
CHART_FUNCTIONS = {"format_wait": format_wait, "draw_line": draw_line, "find_largest": find_largest}


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
