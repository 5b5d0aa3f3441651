"""A task as Flower stores it, in a fifth of the memory of Celery's.

Celery's task keeps each field of each event in a dictionary, with a set of children and three handlers. Flower
holds 100,000 of them, so this one has a slot for each field that a page shows, and drops the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import WeakSet

from celery import states
from celery.events.state import TASK_EVENT_TO_STATE, Task  # type: ignore[attr-defined]  # not in the stubs

from headrace.wire.bulk import BULK_TASK
from headrace.wire.message import submission_time
from headrace.wire.queues import TASK

#: Columns that Headrace adds to the Tasks page: field of DashboardJob -> title.
COLUMNS = {
    "model": "Model",
    "version": "Version",
    "instances": "Instances",
    "attempts": "Attempts",
    "wait": "Wait",
    "reason": "Reason",
}

#: Moments that have a name in Celery: the last event of each kind, in unix seconds.
_MOMENTS = ("sent", "received", "started", "succeeded", "failed", "retried", "revoked", "rejected")
#: Fields of events that are stored under their name.
_OWN_FIELDS = (
    *("name", "args", "kwargs", "eta", "expires", "retries", "result", "exception", "runtime", "traceback"),
    *("exchange", "routing_key", "clock", "root_id", "parent_id"),
)
#: Fields that workers of Headrace add -> attribute. A property of that name reads it.
_ADDED_FIELDS = {name: f"_{name}" for name in ("model", "version", "reason", "runs", "waiting_since")}
_ATTRIBUTES = {name: name for name in _OWN_FIELDS} | _ADDED_FIELDS
_OTHERS = ("uuid", "cluster_state", "state", "timestamp", "worker", "client", "_children")
_SLOTS = (*_MOMENTS, *_ATTRIBUTES.values(), *_OTHERS)


class DashboardJob(Task):
    """A task as Flower shows it. The fields of a job are derived when they are read, so they take no memory."""

    __slots__ = _SLOTS
    _fields = (*Task._fields, *COLUMNS)  # type: ignore[attr-defined]  # not in the stubs

    _children: WeakSet[Any] | None
    _model: Any
    _version: Any
    _reason: Any
    _runs: Any
    _waiting_since: Any

    def __init__(self, uuid: Any = None, cluster_state: Any = None, children: Any = None, **fields: Any) -> None:  # noqa: ARG002  # Celery's signature; children come by events
        for slot in _SLOTS:
            setattr(self, slot, None)
        self.uuid, self.cluster_state, self.state, self.clock = uuid, cluster_state, states.PENDING, 0
        for name in fields.keys() & {*_MOMENTS, "state", "timestamp", "worker", "client"}:
            setattr(self, name, fields[name])
        self._store(fields)

    def event(  # type: ignore[override]  # without the arguments that make names local
        self,
        type_: str,
        timestamp: float | None = None,
        local_received: float | None = None,  # noqa: ARG002  # Celery's signature
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        """Store an event by Celery's rules: one that comes too late does not change the state."""
        state, fields = TASK_EVENT_TO_STATE.get(type_), fields or {}
        if state is None:
            state = type_.upper()
        else:
            setattr(self, type_, timestamp)
        is_late = states.RETRY not in {state, self.state} and (
            states.precedence(state) > states.precedence(self.state)
        )
        if not is_late:
            self.state, self.timestamp = state, timestamp
        elif (merged := self.merge_rules.get(state)) is not None:
            fields = {name: value for name, value in fields.items() if name in merged}
        self._store(fields)

    def _store(self, fields: Mapping[str, Any]) -> None:
        for name, value in fields.items():
            attribute = _ATTRIBUTES.get(name)
            if attribute is not None:
                setattr(self, attribute, value)
        if self.root_id == self.uuid:
            self.root_id = self.uuid  # one text in memory

    @property
    def children(self) -> WeakSet[Any]:
        """The tasks that this one has sent."""
        if self._children is None:
            self._children = WeakSet()
        return self._children

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name; other tasks are in it by their ids."""
        others = {
            "root": self.root_id,
            "parent": self.parent_id,
            "children": [task.id for task in self._children or ()],
        }
        return {name: others[name] if name in others else getattr(self, name) for name in self._fields}

    @property
    def _description(self) -> str:
        """The worker's description of the job, `churn@3, 2 instances`; "" for an ordinary task."""
        if self.name != TASK:
            return ""
        return str(self.result or self.args or "")

    @property
    def model(self) -> str | None:
        """The model; None for an ordinary task."""
        return str(self._model) if self._model else None

    @property
    def version(self) -> str | None:
        """The version that runs or ran; None where none did."""
        return str(self._version) if self._version else None

    @property
    def reason(self) -> str | None:
        """The reason of a failure; None for any other job."""
        return str(self._reason) if self._reason and self.state == states.FAILURE else None

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
        if type(self._runs) is int:
            return self._runs
        return None if self.retries is None else self.retries + 1

    @property
    def wait(self) -> float | None:
        """The seconds from submission, replay or last attempt to a worker; None where nothing tells since when."""
        if self.name != TASK or self.received is None:
            return None
        since = self._waiting_since
        if not isinstance(since, int | float):
            submitted = submission_time(str(self.uuid))
            if submitted is None:
                return None
            since = submitted.timestamp()
        return round(max(0.0, float(self.received - since)), 6)
