"""What became of a job: its timeline, a pure function of what Redis holds of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from headrace.inspection.locate import JobLocation
from headrace.text import format_duration, plural
from headrace.wire.attempts import CRASH, ERROR_PREFIX, LEASE_EXPIRED, REPLAY, TIMEOUT, Attempt
from headrace.wire.dead_letter import DeadLetter
from headrace.wire.execution import Completion, Execution
from headrace.wire.message import submission_time
from headrace.wire.outcome import Cancelled, Expired, Failure, Outcome, Status, Success, outcome_status
from headrace.wire.record import Record

#: What has happened, and, of a job without an outcome, the last three: where it is now.
StepKind = Literal[
    "submitted",
    "attempt",
    "replayed",
    "claimed",
    "predicted",
    "ended",
    "dead letter",
    "waiting",
    "delayed",
    "leased",
]


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that happened to a job, or what goes on with it now."""

    kind: StepKind
    #: The same in words.
    text: str
    #: When, in unix milliseconds; None where nothing tells.
    at_ms: int | None = None
    #: The lease of a claim (host, process and number of who claimed), the worker's name, and how many other jobs
    #: were claimed together with this one.
    claim: str | None = None
    worker: str | None = None
    claim_size: int | None = None
    #: Milliseconds since it was submitted, sent again or lost, up to its claim.
    waited_ms: int | None = None
    version: str | None = None
    runtime: str | None = None
    #: Rows of the batch, and milliseconds its predict call took.
    rows: int | None = None
    duration_ms: float | None = None
    #: Why an attempt was none that counts (`headrace.wire.attempts`), or why a job failed.
    cause: str | None = None
    #: Jobs of the queue that are taken before this one.
    ahead: int | None = None
    #: When a delayed job is due, in unix milliseconds.
    due_ms: int | None = None


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """A job's way, from its submission to its outcome, or to where it is now."""

    job: str
    status: Status
    #: None where nothing tells.
    model: str | None = None
    #: Oldest first. The last says what goes on now, of a job without an outcome.
    steps: tuple[Step, ...] = ()
    #: What the steps leave open, in a sentence.
    note: str | None = None
    metadata: dict[str, str] | None = None


class JobFacts(msgspec.Struct, frozen=True, kw_only=True):
    """All that Redis holds of a job."""

    job: str
    record: Record | None = None
    outcome: Outcome | None = None
    completion: Completion = msgspec.field(default_factory=Completion)
    dead_letter: DeadLetter | None = None
    location: JobLocation | None = None
    #: Whether it was looked where the job lies, and the user may.
    may_locate: bool = True

    @property
    def submitted_ms(self) -> int | None:
        """When it was submitted, by its producer's clock."""
        if self.record is not None and self.record.submitted_ms is not None:
            return self.record.submitted_ms
        moment = submission_time(self.job)
        return None if moment is None else int(moment.timestamp() * 1000)

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The runs the job has behind it, but for the one that ended it."""
        if self.completion.execution is not None:
            return self.completion.execution.attempts
        if self.dead_letter is not None:
            return self.dead_letter.attempts
        return self.location.attempts if self.location is not None else ()


def build_timeline(known: JobFacts) -> Timeline:
    """The timeline of a job."""
    steps = tuple(_steps(known))
    record, letter, ended, place = known.record, known.dead_letter, known.outcome, known.location
    models = (
        ended.prediction.model if isinstance(ended, Success) else None,
        record.model if record else None,
        letter.model if letter else None,
        place.model if place else None,
    )
    return Timeline(
        job=known.job,
        status=_status(known),
        model=next((model for model in models if model), None),
        steps=steps,
        note=_note(known),
        metadata=record.metadata if record else letter.metadata if letter else None,
    )


def _status(known: JobFacts) -> Status:
    if known.outcome is not None:
        return outcome_status(known.outcome)
    if known.location is not None:
        return "running" if known.location.state == "leased" else "queued"
    if known.dead_letter is not None:
        return "failure"
    return "unknown" if known.record is None else "queued"


def _steps(known: JobFacts) -> Iterator[Step]:
    since = known.submitted_ms
    if since is not None:
        earliest = known.record.not_before_ms if known.record else None
        later = f", not to be started for {format_duration(earliest - since)}" if earliest else ""
        yield Step(kind="submitted", at_ms=since, text=f"submitted{later}", due_ms=earliest)
        since = max(since, earliest or 0)
    for attempt in known.attempts:
        yield _attempt(attempt)
        since = attempt.at_ms
    if known.completion.execution is not None:
        yield from _ran(known.completion.execution, known.completion.worker, since)
    if known.outcome is not None:
        yield _ended(known.outcome, known.completion)
    if known.dead_letter is not None:
        yield _buried(known.dead_letter, known.job, told=known.outcome is not None)
    if known.location is not None and known.outcome is None:
        yield _lies(known.location)


def _attempt(attempt: Attempt) -> Step:
    if attempt.cause == REPLAY:
        said = f"sent again by {attempt.owner}"
        return Step(kind="replayed", at_ms=attempt.at_ms, text=said)
    others = attempt.claim_size - 1
    why = {
        CRASH: "its process was lost",
        LEASE_EXPIRED: "its worker was lost, or cut off",
        TIMEOUT: "it took longer than its model's limit",
    }.get(attempt.cause, f"the model raised {attempt.cause.removeprefix(ERROR_PREFIX)}")
    return Step(
        kind="attempt",
        at_ms=attempt.at_ms,
        text=f"ran {company(others)} on {attempt.owner}, in vain: {why}",
        worker=attempt.owner,
        claim_size=others,
        cause=attempt.cause,
    )


def _ran(run: Execution, worker: str | None, since: int | None) -> Iterator[Step]:
    # Who submits has a clock of its own.
    waited = None if since is None else max(0, run.claimed_ms - since)
    after = "" if waited is None else f" after a wait of {format_duration(waited)}"
    yield Step(
        kind="claimed",
        at_ms=run.claimed_ms,
        text=f"claimed {company(run.claim_size - 1)} by {worker or 'a worker'}{after} (claim {run.lease})",
        claim=run.lease,
        worker=worker,
        claim_size=run.claim_size - 1,
        waited_ms=waited,
    )
    if run.version is not None:
        yield Step(
            kind="predicted",
            at_ms=run.claimed_ms + run.started_ms,
            text=f"predicted by version {run.version} on {run.runtime}: {run.instances:,} "
            f"row{'' if run.instances == 1 else 's'} in {format_duration(run.duration_ms)}",
            version=run.version,
            runtime=run.runtime,
            rows=run.instances,
            duration_ms=run.duration_ms,
        )


def _ended(outcome: Outcome, ended: Completion) -> Step:
    match outcome:
        case Success():
            return Step(kind="ended", at_ms=ended.published_ms, text="success: the outcome was published")
        case Failure():
            said = f"failed for good ({outcome.reason}): {outcome.error}: {outcome.message}"
            return Step(kind="ended", at_ms=ended.published_ms, text=said, cause=outcome.reason)
        case Cancelled():
            return Step(kind="ended", at_ms=ended.published_ms, text="cancelled", cause="cancelled")
        case Expired():
            said = "expired: it was not started before its deadline"
            return Step(kind="ended", at_ms=ended.published_ms, text=said, cause="expired")


def _buried(letter: DeadLetter, job: str, *, told: bool) -> Step:
    why = "" if told else f" ({letter.reason}): {letter.error}: {letter.message}"
    return Step(
        kind="dead letter",
        at_ms=letter.died_ms,
        text=f"kept as a dead letter{why}; `headrace dead show {job}` tells more, `headrace dead replay {job}` "
        "sends it again",
        worker=letter.worker,
        version=letter.version,
        cause=letter.reason,
    )


def _lies(place: JobLocation) -> Step:
    match place.state:
        case "leased":
            others = place.claim_size - 1
            said = f"a worker has it, {company(others)} (claim {place.claim})"
            return Step(kind="leased", text=said, claim=place.claim, claim_size=others)
        case "delayed":
            return Step(kind="delayed", text="waits until it is due", due_ms=place.due_ms)
        case "again":
            said = f"waits to run again, alone and before others; {ahead(place.ahead)}"
            return Step(kind="waiting", text=said, ahead=place.ahead)
        case "waiting":
            return Step(kind="waiting", text=f"waits in the queue; {ahead(place.ahead)}", ahead=place.ahead)


def _note(known: JobFacts) -> str | None:
    if known.outcome is not None:
        if known.completion.execution is None and isinstance(known.outcome, Success | Failure):
            return "its outcome does not tell how it came about: no worker of this version of Headrace wrote it"
        return None
    if known.location is not None or known.dead_letter is not None:
        return None
    if not known.may_locate:
        return "it has no outcome; where it lies is not for this Redis user to see"
    if known.record is None:
        return (
            "Redis knows no such job: its outcome is forgotten (HEADRACE_RESULT_TTL), or the id, the Redis URL or "
            "the key prefix is wrong"
        )
    return "it has no outcome, and was seen nowhere: it is deep in its queue, or just moved; ask again"


def company(others: int) -> str:
    """With how many other jobs one ran."""
    if others <= 0:
        return "alone"
    return f"with {others:,} other{'' if others == 1 else 's'}"


def ahead(jobs: int | None) -> str:
    """How many jobs go before one."""
    if not jobs:
        return "it is the next"
    return f"{plural(jobs, 'job')} ahead of it"
