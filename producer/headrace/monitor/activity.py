"""What goes on now, out of the events workers send: how many jobs end, how long they took, which workers live.

A pure account: messages and the clock go in, numbers come out. Of events there may be many thousands a second, so
they are counted second by second, and of their times only some are kept.
"""

from __future__ import annotations

import base64
import binascii
import random
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from typing import Any

import msgspec

from headrace.wire.message import submission_time

#: Seconds that rates and times are of.
WINDOW_SECONDS = 10
#: Times kept of one model and second.
_TIMES = 200
#: Jobs that were started and have not ended, at the most: of those that failed this is what tells the model.
_BEGUN = 100_000
#: Seconds without a heartbeat after which a worker is no longer there: three of Celery's.
_SILENT = 6.0

_ENDS = {
    "task-succeeded": "succeeded",
    "task-failed": "failed",
    "task-revoked": "ended",
    "task-retried": "retried",
}


class Event(msgspec.Struct):
    """What is read of one event of Celery's."""

    type: str
    hostname: str = ""
    uuid: str = ""
    timestamp: float = 0.0
    args: Any = None
    result: Any = None
    exception: Any = None
    active: int | None = None
    processed: int | None = None
    loadavg: list[float] | None = None


class ModelActivity(msgspec.Struct, frozen=True, kw_only=True):
    """The jobs of one model that ended lately, a second."""

    model: str
    #: Jobs a second: successes, failures, runs that will be repeated.
    succeeded_per_second: float
    failed_per_second: float
    retried_per_second: float
    #: Milliseconds from submission to prediction that half and 95 % of the jobs took at the most; None where no id
    #: tells when its job was submitted.
    p50_ms: float | None
    p95_ms: float | None


class WorkerActivity(msgspec.Struct, frozen=True, kw_only=True):
    """A worker that sends heartbeats."""

    worker: str
    #: Whether its heartbeats still come.
    alive: bool
    #: Seconds since the last.
    heartbeat_age_seconds: float
    #: Claims it runs, and has run since it started; the load of its machine over a minute.
    active_claims: int
    processed_claims: int
    load: float | None
    #: Jobs it ended, a second.
    jobs_per_second: float


class ErrorCount(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs of one model that failed alike lately."""

    model: str
    #: The exception, with its message.
    error: str
    count: int


class _Second:
    """What was counted in one second."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.ends: Counter[tuple[str, str]] = Counter()
        self.by_worker: Counter[str] = Counter()
        self.errors: Counter[tuple[str, str]] = Counter()
        self.times: dict[str, list[float]] = {}


class Activity:
    """The account. `now` is a clock in seconds that only goes forward."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._seconds: deque[_Second] = deque()
        self._begun: OrderedDict[str, str] = OrderedDict()
        self._workers: dict[str, tuple[float, Event]] = {}

    def record(self, message: bytes, now: float) -> None:
        """Count the events of a message. What is none is left out."""
        second = self._second(now)
        for event in events(message):
            if event.type == "task-received":
                self._begun[event.uuid] = model_of_description(event.args)
                if len(self._begun) > _BEGUN:
                    self._begun.popitem(last=False)
            elif event.type in _ENDS:
                self._ended(event, second)
            elif event.type in {"worker-heartbeat", "worker-online"}:
                self._workers[event.hostname] = now, event
            elif event.type == "worker-offline":
                self._workers.pop(event.hostname, None)

    def _ended(self, event: Event, second: _Second) -> None:
        begun = self._begun.pop(event.uuid, "")
        model = begun or model_of_description(event.result)
        how = _ENDS[event.type]
        second.ends[model, how] += 1
        second.by_worker[event.hostname] += 1
        if how == "failed":
            second.errors[model, str(event.exception or "")] += 1
        if how == "succeeded" and (submitted := submission_time(event.uuid)) is not None:
            # All are counted, some are measured.
            times = second.times.setdefault(model, [])
            took = max(0.0, (event.timestamp - submitted.timestamp()) * 1000)
            if len(times) < _TIMES:
                times.append(took)
            else:
                times[random.randrange(_TIMES)] = took  # noqa: S311  # a sample, no secret

    def models(self, now: float) -> list[ModelActivity]:
        """The models whose jobs ended within WINDOW, by name."""
        seconds, span = self._window(now)
        ends: Counter[tuple[str, str]] = Counter()
        times: dict[str, list[float]] = {}
        for second in seconds:
            ends.update(second.ends)
            for model, found in second.times.items():
                times.setdefault(model, []).extend(found)
        return [
            ModelActivity(
                model=model,
                succeeded_per_second=ends[model, "succeeded"] / span,
                failed_per_second=ends[model, "failed"] / span,
                retried_per_second=ends[model, "retried"] / span,
                p50_ms=_part(times.get(model, []), 0.5),
                p95_ms=_part(times.get(model, []), 0.95),
            )
            for model in sorted({model for model, _ in ends})
        ]

    def workers(self, now: float) -> list[WorkerActivity]:
        """The workers heard of, by name."""
        seconds, span = self._window(now)
        jobs: Counter[str] = Counter()
        for second in seconds:
            jobs.update(second.by_worker)
        return [
            WorkerActivity(
                worker=name,
                alive=now - at <= _SILENT,
                heartbeat_age_seconds=now - at,
                active_claims=beat.active or 0,
                processed_claims=beat.processed or 0,
                load=beat.loadavg[0] if beat.loadavg else None,
                jobs_per_second=jobs[name] / span,
            )
            for name, (at, beat) in sorted(self._workers.items())
        ]

    def errors(self, now: float) -> list[ErrorCount]:
        """How jobs failed within WINDOW, the most frequent first."""
        errors: Counter[tuple[str, str]] = Counter()
        for second in self._window(now)[0]:
            errors.update(second.errors)
        return [
            ErrorCount(model=model, error=error, count=count) for (model, error), count in errors.most_common()
        ]

    def _second(self, now: float) -> _Second:
        if not self._seconds or self._seconds[-1].number != int(now):
            self._seconds.append(_Second(int(now)))
        while self._seconds[0].number <= now - WINDOW_SECONDS - 1:
            self._seconds.popleft()
        return self._seconds[-1]

    def _window(self, now: float) -> tuple[list[_Second], float]:
        """The seconds that count, and how many there are: fewer at first."""
        seconds = [second for second in self._seconds if second.number > now - WINDOW_SECONDS - 1]
        return seconds, min(max(now - self._since, 1.0), float(WINDOW_SECONDS))


class _Message(msgspec.Struct):
    body: str


_MESSAGE = msgspec.json.Decoder(_Message)
_ONE_OR_MANY = msgspec.json.Decoder(Event | list[Event])


def events(message: bytes) -> Iterator[Event]:
    """The events in a message of Celery's, as kombu publishes it in Redis."""
    try:
        found = _ONE_OR_MANY.decode(base64.b64decode(_MESSAGE.decode(message).body))
    except (msgspec.DecodeError, binascii.Error, RecursionError):
        return
    yield from found if isinstance(found, list) else [found]


def model_of_description(described: Any) -> str:
    """The model in the few words about a job (`envelope.describe`): `churn@3, 2 instances`."""
    return str(described or "").partition(",")[0].partition("@")[0].strip("'\"")


def _part(times: list[float], part: float) -> float | None:
    return sorted(times)[min(int(part * len(times)), len(times) - 1)] if times else None
