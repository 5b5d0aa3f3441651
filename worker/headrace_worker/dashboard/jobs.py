"""What Flower keeps of a job: what Celery's events tell, and what can be read out of it when it is shown."""

from __future__ import annotations

import sys
from typing import Any

from celery.events.state import Task
from flower.events import Events, EventsState

from headrace.monitor.activity import model_in
from headrace.wire.keys import TASK
from headrace.wire.message import submitted_at

#: The columns that Headrace adds to the Tasks page.
COLUMNS = {"model": "Model", "version": "Version", "rows": "Rows", "attempts": "Attempts", "wait": "Wait"}

_PAYLOAD = ("args", "kwargs", "result")
#: What many tasks have alike.
_ALIKE = ("name", "args", "kwargs", "result", "hostname")


class DashboardJob(Task):
    """A task as Flower shows it; of a job also its model. Nothing of this is stored."""

    _fields = (*Task._fields, *COLUMNS)  # type: ignore[attr-defined]  # celery has no types

    @property
    def _described(self) -> str:
        """`churn@3, 2 instances`: the outcome tells the version that ran, the message the one asked for."""
        if self.name != TASK:
            return ""
        return str(self.result or self.args or "")

    @property
    def model(self) -> str | None:
        """The model; None of an ordinary task."""
        return model_in(self._described) or None

    @property
    def version(self) -> str | None:
        """The version that ran, or that was asked for; the event of a failure names it."""
        if said := self.__dict__.get("version"):
            return str(said)
        return self._described.partition(",")[0].partition("@")[2].strip("'\"") or None

    @property
    def rows(self) -> int | None:
        """Instances of the job."""
        count = self._described.partition(", ")[2].partition(" ")[0]
        return int(count) if count.isdecimal() else None

    @property
    def attempts(self) -> int | None:
        """Runs of the job so far, with this one."""
        return None if self.name != TASK or self.retries is None else self.retries + 1

    @property
    def wait(self) -> str | None:
        """How long it waited for a worker; None where its id does not tell when it was submitted."""
        submitted = submitted_at(str(self.uuid)) if self.name == TASK else None
        if submitted is None or self.received is None:
            return None
        seconds = max(0.0, self.received - submitted.timestamp())
        # A narrow column does not break it.
        return f"{seconds * 1000:.0f}\N{NO-BREAK SPACE}ms" if seconds < 1 else f"{seconds:.1f}\N{NO-BREAK SPACE}s"


class JobsState(EventsState):  # type: ignore[misc]  # flower has no types
    """What is kept of tasks. Arguments and results of ordinary tasks are not, unless payloads are to be shown."""

    Task = DashboardJob
    payloads = False

    def event(self, event: dict[str, Any]) -> None:
        """Take an event. Those of jobs have no payload in them: workers describe it."""
        if not self.payloads and event["type"].startswith("task-"):
            known = self.tasks.get(event.get("uuid"))
            if (event.get("name") or getattr(known, "name", None)) != TASK:
                event = {name: value for name, value in event.items() if name not in _PAYLOAD}
        super().event(_shared(event))


def _shared(event: dict[str, Any]) -> dict[str, Any]:
    """The event with one copy of each text that thousands of jobs have alike: memory bounds how many are kept."""
    shared = {name: sys.intern(event[name]) for name in _ALIKE if type(event.get(name)) is str}
    if event.get("root_id") == event.get("uuid") and "root_id" in event:
        shared["root_id"] = event["uuid"]
    return event | shared


class JobEvents(Events):  # type: ignore[misc]  # as above
    """Flower's ear, with that state."""

    def __init__(self, capp: Any, *, payloads: bool, **kwargs: Any) -> None:
        super().__init__(capp, **kwargs)
        self.state: Any
        if not isinstance(self.state, JobsState):
            limits = ("max_tasks_in_memory", "max_workers_in_memory")
            self.state = JobsState(**{name: kwargs[name] for name in limits})
        self.state.payloads = payloads
