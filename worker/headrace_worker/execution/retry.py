"""Whether a job that was run in vain runs again, and when: pure decisions.

    an error ends the run      predict finds the job it belongs to ──┐
    the time was up                                                  ├──> decide ──> Retry | GiveUp
    the process or its owner was lost      the next claim sees it  ──┘

Transient, and worth another run, are `headrace.errors.TransientError`, ConnectionError, TimeoutError, what is
derived from these, and the exceptions that the model's limits name in `retry_on`. Others would only happen again.

A crash is the fault of one job of its claim, and nobody knows which. So its jobs run alone from then on, and
none is given up for a run it shared: only for one that was its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from billiard.exceptions import SoftTimeLimitExceeded

from headrace.clock import exponential_delay
from headrace.errors import InvalidInput, StoreUnavailable, TransientError
from headrace.wire.attempts import ERROR_PREFIX, TIMEOUT, Attempt, select_counted, select_requeues
from headrace.wire.outcome import Reason
from headrace_worker.execution.failures import reason_of
from headrace_worker.manifest import Limits

_TRANSIENT = (TransientError, ConnectionError, TimeoutError)
#: Whatever a model lists: the same input is as bad, and as large, the next time.
_NEVER = (InvalidInput, MemoryError)


#: Seconds a job is given back again and again for a worker that can run it, and while the model store is away.
_WAIT_FOR_WORKER, _WAIT_FOR_STORE = 30.0, 600.0
#: Seconds it waits the first time, doubled each time, and at the most.
_GIVE_BACK, _GIVE_BACK_MAX = 0.1, 5.0


class Retry(msgspec.Struct, frozen=True):
    """The job runs again."""

    #: Seconds from now.
    after: float


class GiveUp(msgspec.Struct, frozen=True):
    """The job is a failure."""

    reason: Reason


def cause_of(error: BaseException, limits: Limits) -> str | None:
    """The cause of an attempt that ended in this error; None for one that no further run would change."""
    if isinstance(error, SoftTimeLimitExceeded):
        return TIMEOUT
    if isinstance(error, _NEVER):
        return None
    if isinstance(error, _TRANSIENT) or any(_names(kind) & set(limits.retry_on) for kind in type(error).__mro__):
        return ERROR_PREFIX + type(error).__name__
    return None


def decide(attempts: Sequence[Attempt], limits: Limits, chance: float) -> Retry | GiveUp:
    """What becomes of a job with these attempts behind it, the last of which has just ended.

    `chance` is a random number from 0 to 1. The delay is exponential with full jitter. Source: Marc Brooker,
    "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    tried = select_counted(attempts)
    if not tried:
        return Retry(0.0)
    last = tried[-1]
    if last.cause == TIMEOUT and last.claim_size == 1:
        return GiveUp("timeout")
    if len(tried) >= limits.max_attempts and (last.claim_size == 1 or not last.is_lost):
        return GiveUp("crash" if last.is_lost else "attempts exhausted")
    if last.is_lost:
        return Retry(0.0)  # nothing to wait for: it runs alone, where it can harm no other
    longest = exponential_delay(len(tried), first=limits.retry_delay, longest=limits.retry_delay_max)
    return Retry(chance * longest)


def requeue(attempts: Sequence[Attempt], error: BaseException, chance: float) -> Retry | GiveUp:
    """What becomes of a job that the worker could not run, for the reason `error`; the last attempt says so.

    It waits for a worker that can, for a bounded time: longer where only the store is away.
    """
    times = select_requeues(attempts)
    away = isinstance(error, StoreUnavailable)
    if times[-1].at_ms - times[0].at_ms > 1000 * (_WAIT_FOR_STORE if away else _WAIT_FOR_WORKER):
        return GiveUp("attempts exhausted" if isinstance(error, TransientError) else reason_of(error))
    longest = exponential_delay(len(times), first=_GIVE_BACK, longest=_GIVE_BACK_MAX)
    return Retry((0.5 + chance / 2) * longest)


def _names(kind: type) -> set[str]:
    return {kind.__name__, kind.__qualname__, f"{kind.__module__}.{kind.__qualname__}"}
