"""Read the messages of a claim, and sort them: jobs to run, jobs that end without running, and other messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NoReturn

import msgspec

from headrace.catalog.aliases import is_version
from headrace.errors import InvalidInput
from headrace.wire.attempts import HISTORY_MARK, Attempt, decode_queued_message, find_pinned_version
from headrace.wire.keys import check_model_name, model_name, queue_name
from headrace.wire.limits import JobLimits
from headrace.wire.message import Job
from headrace.wire.parsing import MalformedMessage, ParsedMessage, parse
from headrace.wire.signing import Trust
from headrace_worker.execution.claimed_job import ClaimedJob, JobResult
from headrace_worker.execution.failures import make_failure, make_failure_from_attempts
from headrace_worker.execution.retry import GiveUp, decide_retry
from headrace_worker.manifest import Limits


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
    #: Jobs whose `eta` has not come: milliseconds until then, and the queued message, with its history.
    not_due: list[tuple[int, bytes]] = []
    #: The ids of the jobs whose predictions are not stored, as their client asks.
    without_result: set[str] = set()


def open_claim(
    queued_messages: Sequence[bytes],
    queue: str,
    now: datetime,
    limits_of: Callable[[Job], Limits],
    *,
    trust: Trust | None = None,
    job_limits: JobLimits = _DEFAULT_LIMITS,
) -> ParsedClaim:
    """Parse each message of a claim once, and sort the results. Raises nothing.

    `limits_of` returns the limits of a job's model; it is called for jobs with earlier attempts only. `trust`
    decides which signatures are accepted; without it, every job is. A job runs only if it names the model that
    the queue belongs to.
    """
    parsed, model, moment = ParsedClaim(), model_name(queue), now.timestamp()
    for queued_message in queued_messages:
        has_history = queued_message.startswith(HISTORY_MARK)
        attempts, message = decode_queued_message(queued_message) if has_history else ((), queued_message)
        try:
            parsed_message = parse(message, trust, job_limits, queue=queue, now=moment)
        except MalformedMessage as error:
            parsed.malformed.append(MalformedEntry(message, attempts, error))
            continue
        reply_channel = parsed_message.reply_to
        try:
            job = parsed_message.to_job()
            if job.model != model:
                _refuse_model(job.model, queue)
        except InvalidInput as error:
            job = _job_without_arguments(parsed_message, queue)
            claimed = ClaimedJob(job, message, attempts, reply_channel)
            parsed.finished.append(JobResult(claimed, make_failure(error, job)))
            continue
        if parsed_message.ignore_result:
            parsed.without_result.add(job.id)
        if attempts and not (job.version and is_version(job.version)):
            job = msgspec.structs.replace(job, version=find_pinned_version(attempts) or job.version)
        claimed = ClaimedJob(job, message, attempts, reply_channel)
        if attempts and isinstance(decision := decide_retry(attempts, limits_of(job), 0.0), GiveUp):
            parsed.finished.append(JobResult(claimed, make_failure_from_attempts(job, attempts, decision.reason)))
        elif job.eta is not None and job.eta > now:
            parsed.not_due.append((int((job.eta - now).total_seconds() * 1000) + 1, queued_message))
        else:
            parsed.jobs.append(claimed)
    return parsed


def _refuse_model(model: object, queue: str) -> NoReturn:
    """Refuse a job that names another model than that of its queue. Raises InvalidInput."""
    name = check_model_name(model)
    raise InvalidInput(
        f"the job names the model {name!r}, and was sent to the queue {queue}; send it to {queue_name(name)}"
    )


def _job_without_arguments(message: ParsedMessage, queue: str) -> Job:
    # Invalid arguments may be anything, for instance an instance in place of the model. The model's name is taken
    # from them only if it is the queue's.
    model = model_name(queue)
    is_named = model and (message.refusal is not None or message.args[:1] == [model])
    return Job(id=message.id, model=model if model and is_named else "", instances=[])
