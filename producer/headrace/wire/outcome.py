"""What a job ends in, exactly once: Success, Failure, Cancelled or Expired, in Celery's stored JSON form.

Stored under Celery's result key, so `AsyncResult(id).get()` of any Celery client returns the success or
raises the failure. Celery ignores two further fields: `reason`, and `execution` (see `headrace.wire.execution`).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Literal, get_args

import msgspec

from headrace.errors import JobCancelled, JobExpired, JobFailed

#: Why a job failed. Decides nothing by itself; it is what people filter by.
Reason = Literal["bad input", "permanent", "attempts exhausted", "crash", "timeout", "malformed", "unknown model"]

#: Where a job is.
Status = Literal["queued", "running", "success", "failure", "cancelled", "expired", "unknown"]


# There may be a hundred thousand at once, and none of them refers to itself: the cycle collector need not look.
class Prediction(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a model answered: one prediction for each instance, in their order."""

    model: str
    version: str
    predictions: list[Any]

    @property
    def prediction(self) -> Any:
        """The only prediction, of a job of one instance."""
        if len(self.predictions) != 1:
            raise ValueError(f"the job had {len(self.predictions)} instances; read `predictions`")
        return self.predictions[0]


class Success(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The model answered."""

    job: str
    prediction: Prediction

    def get(self) -> Prediction:
        """The prediction."""
        return self.prediction


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """The job failed for good."""

    job: str
    reason: Reason
    #: Name and module of the exception, and its message (never a value out of an instance).
    error: str
    module: str
    message: str
    #: Where it was raised, for errors of a model; None where the message says all.
    traceback: str | None = None

    def get(self) -> Prediction:
        """Raises JobFailed."""
        raise JobFailed(
            f"job {self.job} failed ({self.reason}): {self.error}: {self.message}",
            job=self.job,
            reason=self.reason,
            error=self.error,
        )


class Cancelled(msgspec.Struct, frozen=True, kw_only=True):
    """The job was cancelled before it had another outcome."""

    job: str

    def get(self) -> Prediction:
        """Raises JobCancelled."""
        raise JobCancelled(
            f"job {self.job} was cancelled", job=self.job, reason="cancelled", error="TaskRevokedError"
        )


class Expired(msgspec.Struct, frozen=True, kw_only=True):
    """The job was not started before its deadline."""

    job: str

    def get(self) -> Prediction:
        """Raises JobExpired."""
        raise JobExpired(
            f"job {self.job} expired: it was not started before its deadline",
            job=self.job,
            reason="expired",
            error="TaskRevokedError",
        )


Outcome = Success | Failure | Cancelled | Expired

_STATUS: dict[type[Any], Status] = {
    Success: "success",
    Failure: "failure",
    Cancelled: "cancelled",
    Expired: "expired",
}


def outcome_status(outcome: Outcome) -> Status:
    """The status a job has by its outcome."""
    return _STATUS[type(outcome)]


def encode_outcome(
    outcome: Outcome, now: datetime, *, execution: msgspec.Raw | None = None, worker: str | None = None
) -> bytes:
    """Encode an outcome as Celery stores a result. `run` is its `headrace.wire.execution` record."""
    meta: dict[str, Any] = {
        "status": "SUCCESS",
        "result": None,
        "traceback": None,
        "children": [],
        "date_done": now.isoformat(),
        "task_id": outcome.job,
    }
    match outcome:
        case Success():
            meta["result"] = outcome.prediction
        case Failure():
            meta["status"] = "FAILURE"
            meta["result"] = _exception(outcome.error, outcome.module, outcome.message)
            meta["traceback"] = outcome.traceback
            meta["reason"] = outcome.reason
        case Cancelled() | Expired():
            word = "expired" if isinstance(outcome, Expired) else "revoked"
            meta["status"] = "REVOKED"
            meta["result"] = _exception("TaskRevokedError", "celery.exceptions", word)
    if execution is not None:
        meta["execution"], meta["worker"] = execution, worker
    return msgspec.json.encode(meta)


def _exception(name: str, module: str, message: str) -> dict[str, Any]:
    return {"exc_type": name, "exc_message": [message], "exc_module": module}


class _Stored(msgspec.Struct):
    status: str
    task_id: str
    result: Any = None
    traceback: str | None = None
    reason: str | None = None


class _Succeeded(msgspec.Struct, gc=False):
    status: Literal["SUCCESS"]
    task_id: str
    result: Prediction


_STORED = msgspec.json.Decoder(_Stored)
_SUCCEEDED = msgspec.json.Decoder(_Succeeded)

# What Celery itself stores when a pool process dies or runs too long.
_CELERY_REASONS: dict[str, Reason] = {
    "WorkerLostError": "crash",
    "Terminated": "crash",
    "TimeLimitExceeded": "timeout",
    "SoftTimeLimitExceeded": "timeout",
    "NotRegistered": "malformed",
}


def decode_outcome(stored: bytes) -> Outcome | None:
    """The outcome in a result key; None for a state that is none (STARTED, RETRY)."""
    with suppress(msgspec.ValidationError):  # most are: half the time
        found = _SUCCEEDED.decode(stored)
        return Success(job=found.task_id, prediction=found.result)
    meta = _STORED.decode(stored)
    match meta.status:
        case "SUCCESS":
            return Success(job=meta.task_id, prediction=msgspec.convert(meta.result, Prediction))
        case "REVOKED":
            expired = "expired" in _message(meta.result)
            return Expired(job=meta.task_id) if expired else Cancelled(job=meta.task_id)
        case "FAILURE":
            return _failure(meta)
        case _:
            return None


def _failure(meta: _Stored) -> Failure:
    raised = meta.result if isinstance(meta.result, dict) else {}
    error = str(raised.get("exc_type") or "Exception")
    reason: Reason = _CELERY_REASONS.get(error, "permanent")
    if meta.reason in get_args(Reason):
        reason = meta.reason  # type: ignore[assignment]  # checked against the literal on the line above
    return Failure(
        job=meta.task_id,
        reason=reason,
        error=error,
        module=str(raised.get("exc_module") or "builtins"),
        message=_message(meta.result),
        traceback=meta.traceback,
    )


def _message(result: Any) -> str:
    said = result.get("exc_message") if isinstance(result, dict) else result
    if isinstance(said, list | tuple):
        return " ".join(str(part) for part in said)
    return "" if said is None else str(said)


def decode_lines(told: bytes) -> list[Outcome]:
    """The outcomes in a message to an inbox, a line each. What is none is left out: looking will tell."""
    found: list[Outcome] = []
    for line in told.splitlines():
        with suppress(msgspec.DecodeError, RecursionError):
            ended = decode_outcome(line)
            if ended is not None:
                found.append(ended)
    return found


def decode_by_job(stored: Mapping[str, object]) -> dict[str, Outcome]:
    """The outcomes among what is stored for jobs, by id; what is no bytes is none."""
    return {
        job: ended
        for job, raw in stored.items()
        if isinstance(raw, bytes) and (ended := decode_or_malformed(job, raw)) is not None
    }


def decode_or_malformed(job: str, stored: bytes) -> Outcome | None:
    """`decode`, for what anyone may have stored: a result that is none of Headrace's is a failure."""
    try:
        return decode_outcome(stored)
    except (msgspec.DecodeError, RecursionError):
        return Failure(
            job=job,
            reason="malformed",
            error="InvalidResult",
            module="headrace",
            message="what is stored as the job's result is no outcome of Headrace; does another task have its id?",
        )
