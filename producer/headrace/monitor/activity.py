"""Counts the events that workers send: jobs finished a second, their times, their errors, and heartbeats.

It has no I/O: messages and the time go in, numbers come out. There may be thousands of events a second, so they
are counted by second, and only a sample of the times is stored.
"""

from __future__ import annotations

import base64
import random
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from typing import Any

import msgspec

from headrace.wire.message import submission_time
from headrace.wire.stored import DECODE_ERRORS

#: Seconds over which rates and times are computed.
WINDOW_SECONDS = 10
#: Times stored for one model and second.
_TIMES_PER_SECOND = 200
#: Seconds without a heartbeat after which a worker counts as lost: three of Celery's intervals.
_HEARTBEAT_TIMEOUT = 6.0

#: Celery's events that finish a run, and the result they are counted as.
_FINISHING_EVENTS = {
    "task-succeeded": "succeeded",
    "task-failed": "failed",
    "task-revoked": "revoked",
    "task-retried": "retried",
}


class Event(msgspec.Struct):
    """The fields of a Celery event that are read here."""

    type: str
    hostname: str = ""
    uuid: str = ""
    #: The model of a job. Celery's own tasks have none.
    model: str | None = None
    #: The queue of a job of a bulk run; None for any other.
    queue: str | None = None
    timestamp: float = 0.0
    #: Seconds that the claim of a finished job ran.
    runtime: float | None = None
    exception: Any = None
    active: int | None = None
    processed: int | None = None
    loadavg: list[float] | None = None


class ModelActivity(msgspec.Struct, frozen=True, kw_only=True):
    """The jobs of one model that finished within the window."""

    #: The model; the queue for jobs of its bulk runs, whose times are no measure for its other jobs.
    model: str
    succeeded_per_second: float
    failed_per_second: float
    #: Runs that failed and will be repeated.
    retried_per_second: float
    #: Jobs that were cancelled or expired before they ran.
    revoked_per_second: float = 0.0
    #: The pool processes that these runs kept busy, on average.
    busy_processes: float = 0.0
    #: Milliseconds from submission to prediction: the median and the 95th percentile. None where no id contains
    #: the time of submission.
    p50_ms: float | None
    p95_ms: float | None


class WorkerActivity(msgspec.Struct, frozen=True, kw_only=True):
    """A worker that has sent a heartbeat."""

    worker: str
    #: False when its heartbeats have stopped.
    alive: bool
    heartbeat_age_seconds: float
    #: Claims it runs now, and has run since it started.
    active_claims: int
    processed_claims: int
    #: The load average of its machine over a minute; None where it does not report one.
    load: float | None
    #: Jobs it finished a second, within the window.
    jobs_per_second: float


class ErrorCount(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs of one model that failed within the window with the same error."""

    model: str
    #: The exception with its message.
    error: str
    count: int


class _Second:
    """The counts of one second."""

    def __init__(self, number: int) -> None:
        self.number = number
        #: Finished runs by model and result.
        self.finished: Counter[tuple[str, str]] = Counter()
        self.by_worker: Counter[str] = Counter()
        #: Seconds that pool processes ran claims, by model.
        self.busy_seconds: defaultdict[str, float] = defaultdict(float)
        #: Failed jobs by model and error.
        self.errors: Counter[tuple[str, str]] = Counter()
        #: A sample of the milliseconds from submission to prediction, by model.
        self.times_ms: dict[str, list[float]] = {}


class Activity:
    """Counts events. `now` is a monotonic clock in seconds, here and in all methods.

    `window` is the seconds over which rates and times are computed.
    """

    def __init__(self, now: float, window: float = WINDOW_SECONDS) -> None:
        self._started, self._window = now, window
        self._seconds: deque[_Second] = deque()
        #: The last heartbeat of each worker, and when it came.
        self._heartbeats: dict[str, tuple[float, Event]] = {}

    def record(self, message: bytes, now: float) -> None:
        """Count the events of a message. A message that is not one of Celery's is ignored."""
        second = self._current_second(now)
        # The events of a claim are one message, and each has the seconds of the whole claim.
        claim_seconds: dict[str, float] = {}
        for event in decode_events(message):
            if event.runtime and event.model:
                model = event.queue or event.model
                claim_seconds[model] = max(event.runtime, claim_seconds.get(model, 0.0))
            if event.type in _FINISHING_EVENTS:
                self._record_finished(event, second)
            elif event.type in {"worker-heartbeat", "worker-online"}:
                self._heartbeats[event.hostname] = now, event
            elif event.type == "worker-offline":
                self._heartbeats.pop(event.hostname, None)
        for model, seconds in claim_seconds.items():
            second.busy_seconds[model] += seconds

    def _record_finished(self, event: Event, second: _Second) -> None:
        model, result = event.queue or event.model or "", _FINISHING_EVENTS[event.type]
        second.finished[model, result] += 1
        second.by_worker[event.hostname] += 1
        if result == "failed":
            second.errors[model, str(event.exception or "")] += 1
        if result == "succeeded" and (submitted := submission_time(event.uuid)) is not None:
            # Every job is counted, but only a sample of the times is stored.
            times_ms = second.times_ms.setdefault(model, [])
            elapsed_ms = max(0.0, (event.timestamp - submitted.timestamp()) * 1000)
            if len(times_ms) < _TIMES_PER_SECOND:
                times_ms.append(elapsed_ms)
            else:
                times_ms[random.randrange(_TIMES_PER_SECOND)] = elapsed_ms  # noqa: S311  # a sample, no secret

    def models(self, now: float) -> list[ModelActivity]:
        """Return the models whose jobs finished within the window, by name."""
        seconds, span = self._seconds_in_window(now)
        finished: Counter[tuple[str, str]] = Counter()
        busy_seconds: defaultdict[str, float] = defaultdict(float)
        times_ms: dict[str, list[float]] = {}
        for second in seconds:
            finished.update(second.finished)
            for model, seconds_busy in second.busy_seconds.items():
                busy_seconds[model] += seconds_busy
            for model, sample in second.times_ms.items():
                times_ms.setdefault(model, []).extend(sample)
        return [
            ModelActivity(
                model=model,
                succeeded_per_second=finished[model, "succeeded"] / span,
                failed_per_second=finished[model, "failed"] / span,
                retried_per_second=finished[model, "retried"] / span,
                revoked_per_second=finished[model, "revoked"] / span,
                busy_processes=busy_seconds[model] / span,
                p50_ms=_compute_quantile(times_ms.get(model, []), 0.5),
                p95_ms=_compute_quantile(times_ms.get(model, []), 0.95),
            )
            for model in sorted({model for model, _ in finished})
        ]

    def workers(self, now: float) -> list[WorkerActivity]:
        """Return the workers that have sent a heartbeat, by name."""
        seconds, span = self._seconds_in_window(now)
        jobs: Counter[str] = Counter()
        for second in seconds:
            jobs.update(second.by_worker)
        return [
            WorkerActivity(
                worker=name,
                alive=now - received <= _HEARTBEAT_TIMEOUT,
                heartbeat_age_seconds=now - received,
                active_claims=heartbeat.active or 0,
                processed_claims=heartbeat.processed or 0,
                load=heartbeat.loadavg[0] if heartbeat.loadavg else None,
                jobs_per_second=jobs[name] / span,
            )
            for name, (received, heartbeat) in sorted(self._heartbeats.items())
        ]

    def errors(self, now: float) -> list[ErrorCount]:
        """Return the errors of jobs that failed within the window, the most frequent first."""
        errors: Counter[tuple[str, str]] = Counter()
        for second in self._seconds_in_window(now)[0]:
            errors.update(second.errors)
        return [
            ErrorCount(model=model, error=error, count=count) for (model, error), count in errors.most_common()
        ]

    def _current_second(self, now: float) -> _Second:
        if not self._seconds or self._seconds[-1].number != int(now):
            self._seconds.append(_Second(int(now)))
        while self._seconds[0].number <= now - self._window - 1:
            self._seconds.popleft()
        return self._seconds[-1]

    def _seconds_in_window(self, now: float) -> tuple[list[_Second], float]:
        """Return the counts within the window, and its length in seconds: shorter just after the start."""
        seconds = [second for second in self._seconds if second.number > now - self._window - 1]
        return seconds, min(max(now - self._started, 1.0), self._window)


class _Message(msgspec.Struct):
    body: str


_MESSAGE = msgspec.json.Decoder(_Message)
_EVENTS = msgspec.json.Decoder(Event | list[Event])


def decode_events(message: bytes) -> Iterator[Event]:
    """Yield the events in a message, as kombu publishes it in Redis; none for a message of another kind."""
    try:
        events = _EVENTS.decode(base64.b64decode(_MESSAGE.decode(message).body))
    except DECODE_ERRORS:
        return
    yield from events if isinstance(events, list) else [events]


def _compute_quantile(values: list[float], fraction: float) -> float | None:
    return sorted(values)[min(int(fraction * len(values)), len(values) - 1)] if values else None
