"""Decide whether and when a job runs again after a run that gave no outcome. The decisions are pure.

    the run raised an error             predict finds its job ──┐
    the soft time limit passed                                  ├──> decide_retry ──> Retry | GiveUp
    the process or its owner was lost   the next claim reads it ┘

Only transient errors are retried: those for which `failures.find_retry_cause` returns a cause.

A crash is the fault of one job of its claim, and it is unknown which. So each of its jobs runs isolated from then
on. A job is not given up for a run that it shared with others, only for one in which it was alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headrace.clock import exponential_delay
from headrace.errors import StoreUnavailable, TransientError
from headrace.wire.attempts import TIMEOUT, Attempt, select_counted, select_requeues
from headrace.wire.outcome import Reason
from headrace_worker.failures import classify_error
from headrace_worker.manifest import Limits

#: Seconds for which a job is requeued until a worker can run it, and while the model store is unreachable or
#: another worker has the version of the job.
_MAX_WAIT_FOR_WORKER, _MAX_WAIT_FOR_STORE = 30.0, 600.0
#: Seconds between two requeues of a job: the first delay, which doubles each time, and the longest; and the
#: longest if another worker has its version, as the one that claims it next is chosen by chance.
_FIRST_REQUEUE_DELAY, _LONGEST_REQUEUE_DELAY, _LONGEST_DELAY_IF_LOADED = 0.1, 5.0, 1.0


class Retry(msgspec.Struct, frozen=True):
    """The decision that the job runs again."""

    #: Seconds from now.
    after: float


class GiveUp(msgspec.Struct, frozen=True):
    """The decision that the job is a failure."""

    reason: Reason


def decide_retry(attempts: Sequence[Attempt], limits: Limits, chance: float) -> Retry | GiveUp:
    """Decide whether and when a job is retried, from its attempts so far. The last of them has just ended.

    `chance` is a random number from 0 to 1. The delay is exponential with full jitter. Source: Marc Brooker,
    "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    counted = select_counted(attempts)
    if not counted:
        return Retry(0.0)
    last = counted[-1]
    if last.cause == TIMEOUT and last.claim_size == 1:
        return GiveUp("timeout")
    if len(counted) >= limits.max_attempts and (last.claim_size == 1 or not last.is_lost):
        return GiveUp("crash" if last.is_lost else "attempts exhausted")
    if last.is_lost:
        return Retry(0.0)  # no reason to wait: it runs isolated, where it harms no other job
    longest = exponential_delay(len(counted), first=limits.retry_delay, longest=limits.retry_delay_max)
    return Retry(chance * longest)


def decide_requeue(
    attempts: Sequence[Attempt], error: BaseException, chance: float, *, is_loaded_elsewhere: bool = False
) -> Retry | GiveUp:
    """Decide whether and when a job that this worker could not run is requeued. The last attempt is that requeue.

    `error` is the reason why it could not run. The job waits for a worker that can run it, for a bounded time:
    longer if only the store is unreachable, or if another worker has the version. `chance` is a random number from
    0 to 1.
    """
    requeues = select_requeues(attempts)
    is_patient = is_loaded_elsewhere or isinstance(error, StoreUnavailable)
    limit = _MAX_WAIT_FOR_STORE if is_patient else _MAX_WAIT_FOR_WORKER
    if requeues[-1].at_ms - requeues[0].at_ms > 1000 * limit:
        return GiveUp("attempts exhausted" if isinstance(error, TransientError) else classify_error(error))
    longest_of_all = _LONGEST_DELAY_IF_LOADED if is_loaded_elsewhere else _LONGEST_REQUEUE_DELAY
    longest = exponential_delay(len(requeues), first=_FIRST_REQUEUE_DELAY, longest=longest_of_all)
    return Retry((0.5 + chance / 2) * longest)
