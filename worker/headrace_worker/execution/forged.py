"""Find messages that bear the id of another job, among those that would end it without running.

Whoever may push to a queue may write any id into a message, and a message that is refused ends the job of its id.
So a message that would end a job without a run is compared with what Redis holds of the job. If that job was
submitted to another queue, or runs now, the message is a malformed one, and ends no job.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import redis

from headrace.errors import StoredDataError
from headrace.wire.keys import Keys
from headrace.wire.outcome import Success
from headrace.wire.parsing import MalformedMessage
from headrace.wire.record import decode_record
from headrace.wire.stored import DECODE_ERRORS
from headrace_worker.execution.claimed_job import FailedRun, JobResult, NotRunnableHere
from headrace_worker.execution.opening import MalformedEntry, ParsedClaim
from headrace_worker.transport.claims import Claim


class _RunningClaim(msgspec.Struct):
    claim: str = ""


class _Mark(msgspec.Struct):
    """The mark of a job that runs, or another Celery result."""

    status: str
    result: _RunningClaim | None = None


class _Status(msgspec.Struct):
    status: str


_MARK, _STATUS = msgspec.json.Decoder(_Mark), msgspec.json.Decoder(_Status)


def drop_forged(
    client: redis.Redis, keys: Keys, claim: Claim, parsed: ParsedClaim, results: Sequence[JobResult]
) -> Sequence[JobResult]:
    """Make forged messages malformed entries of `parsed`. Return the other results. Raises redis.RedisError.

    It reads Redis only for jobs that end without a run and without attempts; most claims have none.
    """
    suspects = [*filter(_may_be_forged, parsed.finished)]
    suspects += [result for result in results if not isinstance(result.value, Success) and _may_be_forged(result)]
    if not suspects:
        return results
    jobs = [result.claimed.job.id for result in suspects]
    stored: list[bytes | None] = client.mget(  # type: ignore[assignment]  # bytes
        [*map(keys.job, jobs), *map(keys.result, jobs)]
    )
    forged: set[int] = set()
    for result, record, state in zip(suspects, stored[: len(jobs)], stored[len(jobs) :], strict=True):
        problem = find_problem(result.claimed.job.id, claim.lease.queue, claim.lease.name, record, state)
        if problem is not None:
            forged.add(id(result))
            parsed.malformed.append(MalformedEntry(result.claimed.message, (), MalformedMessage(problem)))
    parsed.finished[:] = [result for result in parsed.finished if id(result) not in forged]
    return [result for result in results if id(result) not in forged]


def _may_be_forged(result: JobResult) -> bool:
    """Return whether the job ends without a run. Only workers write attempts, so a job with some is genuine."""
    value = result.value
    return not (
        result.claimed.attempts or result.batch_run is not None or isinstance(value, FailedRun | NotRunnableHere)
    )


def find_problem(job: str, queue: str, lease: str, record: bytes | None, state: bytes | None) -> str | None:
    """Decide whether a message is forged. Return the reason, None if it is not.

    `queue` and `lease` are those of the message's claim. `record` and `state` are the stored record and result of
    the job, None where there is none.
    """
    if record is not None:
        try:
            submitted = decode_record(job, record).queue
        except StoredDataError:
            pass  # a damaged record says nothing
        else:
            if submitted != queue:
                return _describe(f"was submitted to the queue {submitted}")
    if state is not None and _running_claim(state) not in {None, lease}:
        return _describe("runs now")
    return None


def _describe(fact: str) -> str:
    return f"it bears the id of a job that {fact}, and that job goes on; submit this one under another id"


def _running_claim(state: bytes) -> str | None:
    """Return the claim that runs a job, empty if it is not known; None for a job that does not run."""
    try:
        if _STATUS.decode(state).status != "STARTED":
            return None
        return (_MARK.decode(state).result or _RunningClaim()).claim
    except DECODE_ERRORS:
        return None
