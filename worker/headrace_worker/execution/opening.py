"""Read the messages of a claim, and sort them: jobs to run, jobs that end without running, and other messages.

Attempts are counted before a message is opened: a message may end the process that parses it. When the runs that
were lost use up its attempts, it becomes a dead letter unopened.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import NoReturn

import msgspec

from headrace.catalog.aliases import is_version
from headrace.errors import InvalidInput
from headrace.wire.attempts import (
    Attempt,
    decode_queued_message,
    encode_delayed,
    encode_queued_message,
    find_pinned_version,
    select_counted,
    select_source,
)
from headrace.wire.bulk import BULK_TASK
from headrace.wire.columns import Columns
from headrace.wire.foreign_message import scan_id, scan_reply_to
from headrace.wire.limits import JobLimits
from headrace.wire.message import Job
from headrace.wire.names import check_model_name
from headrace.wire.outcome import Reason
from headrace.wire.parsing import MalformedMessage, ParsedMessage, parse, parse_canvas
from headrace.wire.queues import TASK, holds_histories, is_bulk_queue, model_name
from headrace.wire.signing import Trust
from headrace_worker.execution.claimed_job import ClaimedJob, JobResult
from headrace_worker.execution.columns import open_columns
from headrace_worker.execution.retry import GiveUp, decide_retry
from headrace_worker.failures import make_failure, make_failure_from_attempts
from headrace_worker.manifest import Limits
from headrace_worker.transport.claims import Claim

log = logging.getLogger("headrace.claims")


class MalformedEntry(msgspec.Struct, frozen=True):
    """A message that holds no job."""

    #: Its bytes, without a history.
    message: bytes
    attempts: tuple[Attempt, ...]
    error: MalformedMessage


_DEFAULT_LIMITS = JobLimits()


class ParsedClaim(msgspec.Struct, frozen=True, kw_only=True):
    """The messages of a claim, sorted."""

    #: The jobs to run, in the order of the claim.
    jobs: list[ClaimedJob] = []
    #: Jobs that fail without running: their arguments are invalid, or their attempts are used up.
    finished: list[JobResult] = []
    malformed: list[MalformedEntry] = []
    #: Jobs whose `eta` has not come: id, milliseconds until then, and the member of `Keys.delayed`.
    not_due: list[tuple[str, int, bytes]] = []
    #: The ids of the jobs whose predictions are not stored, as their client asks.
    without_result: set[str] = set()


class ClaimOpener(msgspec.Struct, frozen=True):
    """Opens the messages of one claim."""

    queue: str
    #: The model that the queue belongs to.
    model: str
    #: The server's time, and in unix seconds.
    now: datetime
    timestamp: float
    #: Returns the limits of a model by name and version; without a version, of the one that serves.
    limits_of: Callable[[str, str | None], Limits]
    trust: Trust | None
    job_limits: JobLimits
    parsed: ParsedClaim
    #: True for a queue of bulk jobs.
    is_bulk: bool = False

    def open(self, message: bytes, attempts: tuple[Attempt, ...] = ()) -> None:
        """Parse a message and sort it."""
        parsed = self.parsed
        try:
            parsed_message = parse(message, self.trust, self.job_limits, queue=self.queue, now=self.timestamp)
        except MalformedMessage as error:
            parsed.malformed.append(MalformedEntry(message, attempts, error))
            return
        reply_channel, canvas = parsed_message.reply_to, parsed_message.canvas
        try:
            job = parsed_message.to_job()
            if job.model != self.model or (job.step is not None) != self.is_bulk:
                _refuse_queue(job, self.queue)
            if isinstance(job.instances, Columns):
                job = msgspec.structs.replace(job, instances=open_columns(job.instances, self.job_limits))
        except InvalidInput as error:
            job = _job_without_arguments(parsed_message, self.queue)
            claimed = ClaimedJob(job, message, attempts, reply_channel, canvas)
            parsed.finished.append(JobResult(claimed, make_failure(error, job)))
            return
        if parsed_message.ignore_result:
            parsed.without_result.add(job.id)
        if attempts and not (job.version and is_version(job.version)):
            job = msgspec.structs.replace(job, version=find_pinned_version(attempts) or job.version)
        claimed = ClaimedJob(job, message, attempts, reply_channel, canvas)
        if attempts and (reason := self.reason_to_give_up(attempts, job.model, job.version)):
            parsed.finished.append(JobResult(claimed, make_failure_from_attempts(job, attempts, reason)))
        elif job.eta is not None and job.eta > self.now:
            milliseconds = int((job.eta - self.now).total_seconds() * 1000) + 1
            source = select_source(attempts, job.priority)
            member = encode_delayed(source, encode_queued_message(attempts, message))
            parsed.not_due.append((job.id, milliseconds, member))
        else:
            parsed.jobs.append(claimed)

    def refuse(self, message: bytes, attempts: tuple[Attempt, ...], error: Exception) -> None:
        """Let a message fail that could not be sorted: the error is ours, and must not stop the other jobs."""
        kind = type(error).__qualname__
        log.error("a message in %s cannot be read: %s; please report it", self.queue, kind)
        job_id = scan_id(message)
        if not job_id:
            self.parsed.malformed.append(MalformedEntry(message, attempts, MalformedMessage(kind)))
            return
        job = Job(id=job_id, model=self.model, instances=[])
        claimed = ClaimedJob(job, message, attempts, scan_reply_to(message))
        failure = make_failure(InvalidInput(f"the message cannot be read ({kind})"), job)
        self.parsed.finished.append(JobResult(claimed, failure))

    def open_with_history(self, queued_message: bytes) -> None:
        """Count the attempts of a message, and open it unless lost runs have used them up."""
        attempts, message = decode_queued_message(queued_message)
        counted = select_counted(attempts)
        version = find_pinned_version(attempts)
        if counted and counted[-1].is_lost and (reason := self.reason_to_give_up(attempts, self.model, version)):
            self.give_up_unopened(message, attempts, reason)
        else:
            self.open(message, attempts)

    def reason_to_give_up(self, attempts: tuple[Attempt, ...], model: str, version: str | None) -> Reason | None:
        """Return the reason why a job with these attempts is given up; None if it runs again."""
        decision = decide_retry(attempts, self.limits_of(model, version), 0.0)
        return decision.reason if isinstance(decision, GiveUp) else None

    def give_up_unopened(self, message: bytes, attempts: tuple[Attempt, ...], reason: Reason) -> None:
        """Sort a message among those that ended. Only its start and its end are searched for its id."""
        job_id = scan_id(message)
        if not job_id:
            causes = ", ".join(attempt.cause for attempt in select_counted(attempts))
            error = MalformedMessage(
                f"its runs were lost ({causes}), so it was not opened again; its start and end hold no id of a job"
            )
            self.parsed.malformed.append(MalformedEntry(message, attempts, error))
            return
        job = Job(id=job_id, model=self.model, instances=[])
        canvas = None
        # What follows the job is read from the message once. If that run was lost too, the message is not touched.
        if not self.reason_to_give_up(attempts[:-1], self.model, find_pinned_version(attempts)):
            canvas = parse_canvas(message, self.trust, self.job_limits, queue=self.queue, now=self.timestamp)
        claimed = ClaimedJob(job, message, attempts, scan_reply_to(message), canvas)
        self.parsed.finished.append(JobResult(claimed, make_failure_from_attempts(job, attempts, reason)))


def open_claim(
    claim: Claim,
    now: datetime,
    limits_of: Callable[[str, str | None], Limits],
    *,
    trust: Trust | None = None,
    job_limits: JobLimits = _DEFAULT_LIMITS,
) -> ParsedClaim:
    """Open each message of a claim once, and sort the results. Raises nothing.

    `limits_of` returns the limits of a model by name and version (None: of the version that serves); it is called
    for jobs with earlier attempts only. `trust` decides which signatures are accepted; without it, every job is. A
    job runs only if it names the model that the queue belongs to.
    """
    queue = claim.lease.queue
    opener = ClaimOpener(
        queue,
        model_name(queue) or "",
        now,
        now.timestamp(),
        limits_of,
        trust,
        job_limits,
        ParsedClaim(),
        is_bulk_queue(queue),
    )
    for source, queued_messages in claim.by_source():
        # Where a producer wrote the bytes, they are a message as a whole.
        open_message = opener.open_with_history if holds_histories(source) else opener.open
        for queued_message in queued_messages:
            try:
                open_message(queued_message)
            except Exception as error:  # noqa: BLE001  # no message may stop the others of its claim
                opener.refuse(queued_message, (), error)
    return opener.parsed


def open_exhausted(
    claim: Claim, now: datetime, limits_of: Callable[[str, str | None], Limits]
) -> ParsedClaim | None:
    """Give up the isolated job of a claim if two processes that were to give it up were lost.

    Return None for any other claim. The message is not opened.
    """
    if not claim.lease.is_isolated:
        return None
    attempts, message = decode_queued_message(claim.queued_messages[0])
    counted = select_counted(attempts)
    if not (counted and counted[-1].is_lost):
        return None
    queue, timestamp = claim.lease.queue, now.timestamp()
    opener = ClaimOpener(
        queue, model_name(queue) or "", now, timestamp, limits_of, None, _DEFAULT_LIMITS, ParsedClaim()
    )
    version = find_pinned_version(attempts)
    reason = opener.reason_to_give_up(attempts, opener.model, version)
    if reason is None or opener.reason_to_give_up(attempts[:-2], opener.model, version) is None:
        return None
    opener.give_up_unopened(message, attempts, reason)
    return opener.parsed


def _refuse_queue(job: Job, queue: str) -> NoReturn:
    """Refuse a job of another queue: another model's, or that of the other task. Raises InvalidInput."""
    name = check_model_name(job.model)
    if name == model_name(queue):
        task = TASK if job.step is None else BULK_TASK
        raise InvalidInput(f"a job of the task {task} was sent to the queue {queue}; send it to {job.queue}")
    raise InvalidInput(
        f"the job names the model {name!r}, and was sent to the queue {queue}; send it to {job.queue}"
    )


def _job_without_arguments(message: ParsedMessage, queue: str) -> Job:
    # Invalid arguments may be anything, for instance an instance in place of the model. The model's name is taken
    # from them only if it is the queue's.
    model = model_name(queue)
    named = message.kwargs.get("model") or next(iter(message.args), None)
    is_named = model and (message.refusal is not None or named == model)
    return Job(id=message.id, model=model if model and is_named else "", instances=[])
