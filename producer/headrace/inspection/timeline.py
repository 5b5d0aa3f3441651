"""The history of a job as a sequence of steps, a pure function of what Redis holds about the job."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from headrace.catalog.pauses import Pause
from headrace.inspection.locate import JobLocation
from headrace.text import format_duration, plural
from headrace.wire.attempts import (
    CRASH,
    ERROR_PREFIX,
    LEASE_EXPIRED,
    REPLAY,
    REQUEUED,
    TIMEOUT,
    Attempt,
    find_pinned_version,
    select_counted,
)
from headrace.wire.dead_letter import DeadLetter
from headrace.wire.execution import Completion, Execution
from headrace.wire.message import submission_time
from headrace.wire.outcome import (
    BulkSuccess,
    Cancelled,
    Expired,
    Failure,
    Outcome,
    Status,
    Success,
    outcome_status,
)
from headrace.wire.queues import is_bulk_queue
from headrace.wire.record import Record

#: What happened to the job. The last four say where a job without an outcome is now.
StepKind = Literal[
    "submitted",
    "attempt",
    "requeued",
    "replayed",
    "claimed",
    "predicted",
    "outcome",
    "dead letter",
    "waiting",
    "isolated",
    "delayed",
    "leased",
]


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event in the history of a job, or its present place."""

    kind: StepKind
    #: The step as a sentence.
    text: str
    #: The moment, unix milliseconds; None where it is unknown, and for the present place.
    at_ms: int | None = None
    #: The lease of the claim (host, process and number), the worker's name, and the jobs in the claim: 1 is alone.
    lease: str | None = None
    worker: str | None = None
    claim_size: int | None = None
    #: Milliseconds from the submission, replay or last attempt to the claim.
    waited_ms: int | None = None
    version: str | None = None
    runtime: str | None = None
    #: Instances in the batch of the predict call, and milliseconds the call took.
    instances: int | None = None
    duration_ms: float | None = None
    #: The cause of an attempt (`headrace.wire.attempts`), or the reason of a failure.
    cause: str | None = None
    #: Jobs of the queue that are claimed before this one.
    ahead: int | None = None
    #: The moment a delayed job is due, unix milliseconds.
    due_ms: int | None = None


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """The history of a job, from its submission to its outcome or its present place."""

    job: str
    status: Status
    #: None where nothing names it.
    model: str | None = None
    #: Oldest first. For a job without an outcome, the last is its present place.
    steps: tuple[Step, ...] = ()
    #: The version that ran last; None where none did, or nothing names it.
    version: str | None = None
    #: Runs since the submission or the last replay, a present one included; None where nothing tells.
    attempts: int | None = None
    #: Bytes of the stored outcome; None where there is none.
    outcome_bytes: int | None = None
    #: The id of its trace, of OpenTelemetry or Sentry: 32 hexadecimal digits; None where it has none.
    trace: str | None = None
    #: A sentence about what is missing in the steps; None where nothing is.
    note: str | None = None
    metadata: dict[str, str] | None = None


class JobFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything Redis holds about a job."""

    job: str
    record: Record | None = None
    outcome: Outcome | None = None
    completion: Completion = msgspec.field(default_factory=Completion)
    #: Bytes of the stored outcome.
    outcome_bytes: int | None = None
    dead_letter: DeadLetter | None = None
    #: None where the job was not searched for, or not found.
    location: JobLocation | None = None
    #: True if the job has a record, and is in no place.
    is_lost: bool = False
    #: False where the Redis user may not search the queues.
    may_locate: bool = True
    #: The pause of its model; None if it is not paused, or the job does not wait.
    pause: Pause | None = None

    @property
    def submitted_ms(self) -> int | None:
        """The moment of submission, unix milliseconds of the producer's clock; None where it is unknown."""
        if self.record is not None and self.record.submitted_ms is not None:
            return self.record.submitted_ms
        moment = submission_time(self.job)
        return None if moment is None else int(moment.timestamp() * 1000)

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The attempts before the execution that finished the job, oldest first."""
        if self.completion.execution is not None:
            return self.completion.execution.attempts
        if self.dead_letter is not None:
            return self.dead_letter.attempts
        return self.location.attempts if self.location is not None else ()

    @property
    def is_bulk(self) -> bool:
        """True for a job of a bulk run, whose execution names no version."""
        if self.record is not None:
            return self.record.is_bulk
        letter = self.dead_letter
        return isinstance(self.outcome, BulkSuccess) or (letter is not None and is_bulk_queue(letter.queue))

    @property
    def execution(self) -> Execution | None:
        """The run that ended the job; None where its last claim ran nothing, because it had expired, say."""
        execution = self.completion.execution
        if execution is None or (execution.version is None and not self.is_bulk):
            return None
        return execution


def build_timeline(facts: JobFacts) -> Timeline:
    """Return the timeline of a job."""
    record, letter, outcome, location = facts.record, facts.dead_letter, facts.outcome, facts.location
    models = (
        outcome.prediction.model if isinstance(outcome, Success) else None,
        record.model if record else None,
        letter.model if letter else None,
        location.model if location else None,
    )
    return Timeline(
        job=facts.job,
        status=_find_status(facts),
        model=next((model for model in models if model), None),
        steps=tuple(_list_steps(facts)),
        version=_find_version(facts),
        attempts=_count_runs(facts),
        outcome_bytes=facts.outcome_bytes,
        trace=record.trace if record else None,
        note=_write_note(facts),
        metadata=record.metadata if record else letter.metadata if letter else None,
    )


def _find_status(facts: JobFacts) -> Status:
    if facts.outcome is not None:
        return outcome_status(facts.outcome)
    if facts.location is not None:
        return "running" if facts.location.state == "leased" else "waiting"
    if facts.dead_letter is not None:
        return "failure"
    if facts.is_lost:
        return "lost"
    return "unknown" if facts.record is None else "waiting"


def _find_version(facts: JobFacts) -> str | None:
    if isinstance(facts.outcome, Success) and facts.outcome.prediction.version:
        return facts.outcome.prediction.version
    if facts.execution is not None and facts.execution.version is not None:
        return facts.execution.version
    if facts.dead_letter is not None and facts.dead_letter.version is not None:
        return facts.dead_letter.version
    return find_pinned_version(facts.attempts)


def _count_runs(facts: JobFacts) -> int | None:
    counted = len(select_counted(facts.attempts))
    if facts.completion.execution is not None:
        return counted + (facts.execution is not None)
    if facts.dead_letter is not None:
        return facts.dead_letter.runs
    if facts.location is not None:
        return counted + (facts.location.state == "leased")
    return 0 if isinstance(facts.outcome, Cancelled | Expired) else None


def _list_steps(facts: JobFacts) -> Iterator[Step]:
    waiting_since_ms = facts.submitted_ms
    if waiting_since_ms is not None:
        earliest_ms = facts.record.not_before_ms if facts.record else None
        delay = f" with a delay of {format_duration(earliest_ms - waiting_since_ms)}" if earliest_ms else ""
        yield Step(kind="submitted", at_ms=waiting_since_ms, text=f"submitted{delay}", due_ms=earliest_ms)
        waiting_since_ms = max(waiting_since_ms, earliest_ms or 0)
    for attempt in facts.attempts:
        yield _make_attempt_step(attempt)
        waiting_since_ms = attempt.at_ms
    if facts.execution is not None:
        yield from _make_execution_steps(facts.execution, facts.completion.worker, waiting_since_ms)
    if facts.outcome is not None:
        yield _make_outcome_step(facts.outcome, facts.completion)
    if facts.dead_letter is not None:
        yield _make_dead_letter_step(facts.dead_letter, facts.job, with_error=facts.outcome is None)
    if facts.location is not None and facts.outcome is None:
        yield _make_location_step(facts.location)


def _make_attempt_step(attempt: Attempt) -> Step:
    if attempt.cause == REPLAY:
        return Step(kind="replayed", at_ms=attempt.at_ms, text=f"replayed by {attempt.owner}")
    if attempt.cause == REQUEUED:
        text = f"requeued by {attempt.owner}, which could not run it"
        return Step(kind="requeued", at_ms=attempt.at_ms, text=text, worker=attempt.owner, cause=attempt.cause)
    reason = {
        CRASH: "its process was lost",
        LEASE_EXPIRED: "its lease expired, as the worker was lost or disconnected",
        TIMEOUT: "it exceeded its model's time limit",
    }.get(attempt.cause, f"the model raised {attempt.cause.removeprefix(ERROR_PREFIX)}")
    return Step(
        kind="attempt",
        at_ms=attempt.at_ms,
        text=f"attempt on {attempt.owner} {describe_claim_size(attempt.claim_size)} failed: {reason}",
        worker=attempt.owner,
        claim_size=attempt.claim_size,
        cause=attempt.cause,
    )


def _make_execution_steps(
    execution: Execution, worker: str | None, waiting_since_ms: int | None
) -> Iterator[Step]:
    # The producer's clock may be ahead of the server's.
    waited_ms = None if waiting_since_ms is None else max(0, execution.claimed_ms - waiting_since_ms)
    wait = "" if waited_ms is None else f" after a wait of {format_duration(waited_ms)}"
    others = describe_claim_size(execution.claim_size)
    yield Step(
        kind="claimed",
        at_ms=execution.claimed_ms,
        text=f"claimed by {worker or 'a worker'} {others}{wait} (lease {execution.lease})",
        lease=execution.lease,
        worker=worker,
        claim_size=execution.claim_size,
        waited_ms=waited_ms,
    )
    if execution.version is not None:
        yield Step(
            kind="predicted",
            at_ms=execution.claimed_ms + execution.started_ms,
            text=f"predicted by version {execution.version} on {execution.runtime}: "
            f"{plural(execution.instances, 'instance')} in {format_duration(execution.duration_ms)}",
            version=execution.version,
            runtime=execution.runtime,
            instances=execution.instances,
            duration_ms=execution.duration_ms,
        )


def _make_outcome_step(outcome: Outcome, completion: Completion) -> Step:
    match outcome:
        case Success():
            return Step(kind="outcome", at_ms=completion.published_ms, text="success: the outcome was published")
        case Failure():
            text = f"failed ({outcome.reason}): {outcome.error}: {outcome.message}"
            return Step(kind="outcome", at_ms=completion.published_ms, text=text, cause=outcome.reason)
        case Cancelled():
            return Step(kind="outcome", at_ms=completion.published_ms, text="cancelled", cause="cancelled")
        case Expired():
            text = "expired: it was not started before its deadline"
            return Step(kind="outcome", at_ms=completion.published_ms, text=text, cause="expired")


def _make_dead_letter_step(letter: DeadLetter, job: str, *, with_error: bool) -> Step:
    error = f" ({letter.reason}): {letter.error}: {letter.message}" if with_error else ""
    return Step(
        kind="dead letter",
        at_ms=letter.died_ms,
        text=f"stored as a dead letter{error}; `headrace dead show {job}` prints it, `headrace dead replay {job}` "
        "runs the job again",
        worker=letter.worker,
        version=letter.version,
        cause=letter.reason,
    )


def _make_location_step(location: JobLocation) -> Step:
    match location.state:
        case "leased":
            text = f"claimed by a worker {describe_claim_size(location.claim_size)} (lease {location.lease})"
            return Step(kind="leased", text=text, lease=location.lease, claim_size=location.claim_size)
        case "delayed":
            return Step(kind="delayed", text="delayed until it is due", due_ms=location.due_ms)
        case "isolated":
            text = f"waits to run alone, before other jobs; {_describe_ahead(location.ahead)}"
            return Step(kind="isolated", text=text, ahead=location.ahead)
        case "waiting":
            text = f"waits in the queue; {_describe_ahead(location.ahead)}"
            return Step(kind="waiting", text=text, ahead=location.ahead)


def _write_note(facts: JobFacts) -> str | None:
    if facts.outcome is not None:
        if facts.completion.execution is None and isinstance(facts.outcome, Success | Failure):
            return (
                "the outcome has no record of the execution: a plain Celery worker or an older Headrace wrote it"
            )
        return None
    if facts.location is not None or facts.dead_letter is not None:
        return f"the model is {facts.pause}" if facts.pause is not None else None
    if not facts.may_locate:
        return "it has no outcome, and this Redis user may not search the queues for it"
    if facts.record is None:
        return (
            "Redis has no such job: its outcome has expired (HEADRACE_RESULT_TTL), or the id, the Redis URL or "
            "the key prefix is wrong"
        )
    if facts.is_lost:
        return (
            "it has no outcome, and is in no list, delayed set or lease: its list was deleted, perhaps by "
            "`celery purge`; submit it again under the same id"
        )
    return "it has no outcome and was not found: it is deep in its queue, or moved during the search; ask again"


def describe_claim_size(claim_size: int) -> str:
    """Return `alone`, or `with 2 other jobs` for a claim of three jobs."""
    return "alone" if claim_size <= 1 else f"with {plural(claim_size - 1, 'other job')}"


def _describe_ahead(jobs: int | None) -> str:
    return f"{plural(jobs, 'job')} ahead of it" if jobs else "it is the next"
