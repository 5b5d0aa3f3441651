"""The messages of a claim, read and sorted: what can run, what has ended already, and what goes elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec

from headrace.catalog.aliases import is_version
from headrace.errors import InvalidInput
from headrace.wire.attempts import HISTORY_MARK, decode_queued_message, find_pinned_version
from headrace.wire.keys import model_name
from headrace.wire.message import Job
from headrace.wire.outcome import Failure
from headrace.wire.parsing import MalformedMessage, ParsedMessage, parse
from headrace.wire.signing import Trust
from headrace_worker.execution.failures import failure_of, given_up
from headrace_worker.execution.retry import GiveUp, decide
from headrace_worker.manifest import Limits


class ParsedClaim(msgspec.Struct, frozen=True, kw_only=True):
    """A claim, sorted: what can run, what has ended already, and what goes elsewhere. All with their frames."""

    jobs: list[Job]
    #: The frames of these jobs, in the same order.
    frames: list[bytes]
    #: Jobs that end without running: their arguments are no job's, or they were tried often enough.
    finished: list[tuple[Job, bytes, Failure]]
    #: Messages that are no job at all, and why.
    malformed: list[tuple[bytes, MalformedMessage]]
    #: The inbox of the client that waits, by job id.
    reply_channels: dict[str, str]
    #: Jobs whose time has not come: milliseconds until then.
    not_due: list[tuple[int, bytes]]


def open_claim(
    frames: Sequence[bytes],
    queue: str,
    now: datetime,
    limits_of: Callable[[Job], Limits],
    trust: Trust | None = None,
) -> ParsedClaim:
    """Read the messages of a claim. Reads nothing twice and raises nothing.

    `limits_of` is asked for the limits of the model of a job that was tried before; `trust` says whose jobs are
    taken, without it all are.
    """
    opened = ParsedClaim(jobs=[], frames=[], finished=[], malformed=[], reply_channels={}, not_due=[])
    for frame in frames:
        attempts, message = decode_queued_message(frame) if frame.startswith(HISTORY_MARK) else ((), frame)
        try:
            sealed = parse(message, trust)
        except MalformedMessage as error:
            opened.malformed.append((frame, error))
            continue
        if sealed.reply_to is not None:
            opened.reply_channels[sealed.id] = sealed.reply_to
        try:
            job = sealed.to_job()
        except InvalidInput as error:
            unreadable = _unreadable(sealed, queue)
            opened.finished.append((unreadable, frame, failure_of(error, unreadable)))
            continue
        if attempts and not (job.version and is_version(job.version)) and (kept := find_pinned_version(attempts)):
            job = msgspec.structs.replace(job, version=kept)
        if attempts and isinstance(decision := decide(attempts, limits_of(job), 0.0), GiveUp):
            opened.finished.append((job, frame, given_up(job, attempts, decision.reason)))
        elif job.eta is not None and job.eta > now:
            opened.not_due.append((int((job.eta - now).total_seconds() * 1000) + 1, frame))
        else:
            opened.jobs.append(job)
            opened.frames.append(frame)
    return opened


def _unreadable(sealed: ParsedMessage, queue: str) -> Job:
    # Its arguments may be anything, an instance in place of the model too: only a name that is known is taken.
    model = model_name(queue)
    known = model and (sealed.refusal is not None or sealed.args[:1] == [model])
    return Job(id=sealed.id, model=model if model and known else "", instances=[])
