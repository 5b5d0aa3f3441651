"""The outcome of a job: Success, Failure, Cancelled or Expired. A job has exactly one.

An outcome is stored under Celery's result key in Celery's JSON form, so `AsyncResult(id).get()` of any Celery
client returns the success or raises the failure. Celery ignores the two fields that Headrace adds: `reason`, and
`execution` (see `headrace.wire.execution`).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Literal, get_args

import msgspec

from headrace.errors import JobCancelled, JobExpired, JobFailed
from headrace.errors import Reason as Reason  # noqa: PLC0414  # re-exported
from headrace.wire.bulk import Receipt
from headrace.wire.stored import DECODE_ERRORS

#: The status of a job.
Status = Literal["waiting", "running", "success", "failure", "cancelled", "expired", "lost", "unknown"]

#: The label of a class.
ClassLabel = str | int | float | bool


# A client may hold a hundred thousand predictions. They have no reference cycles, so the collector skips them.
class Prediction(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """The answer of a model: a prediction for each instance of the job, in the order of the instances."""

    model: str
    version: str
    predictions: list[Any]
    #: The classes whose values each prediction holds, in their order, as `predict_proba` does; None for others.
    classes: tuple[ClassLabel, ...] | None = None
    #: The errors of those instances that failed, by their index; their predictions are None. Only a job whose
    #: instances were sent in columns has them: any other job fails as a whole.
    errors: dict[int, str] | None = None

    @property
    def prediction(self) -> Any:
        """The only prediction of a job with one instance. Raises ValueError for other jobs."""
        if len(self.predictions) != 1:
            raise ValueError(f"the job had {len(self.predictions)} instances; read `predictions`")
        return self.predictions[0]

    @property
    def labelled(self) -> Any:
        """Each class with its value, as a dict: one dict for a job with one instance, else a list of them.

        Raises ValueError if the method returns no value for each class.
        """
        if self.classes is None:
            raise ValueError(
                f"the predictions of {self.model}@{self.version} have no value for each class, as those of "
                "`predict_proba` have"
            )
        labelled = [dict(zip(self.classes, values, strict=True)) for values in self.predictions]
        return labelled[0] if len(labelled) == 1 else labelled


class Success(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The outcome of a job that the model predicted."""

    job: str
    prediction: Prediction

    def get(self) -> Prediction:
        """Return the prediction."""
        return self.prediction


class BulkSuccess(Success, frozen=True, kw_only=True, gc=False):
    """The outcome of a job of a bulk run. Its result is the receipt, and it has no predictions."""

    receipt: Receipt
    prediction: Prediction = Prediction(model="", version="", predictions=[])


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a job that failed for good."""

    job: str
    reason: Reason
    #: Name and module of the exception, and its message (never a value out of an instance).
    error: str
    module: str
    message: str
    #: The traceback of an error of the model; None for other errors.
    traceback: str | None = None

    def get(self) -> Prediction:
        """Raise JobFailed."""
        raise JobFailed(
            f"job {self.job} failed ({self.reason}): {self.error}: {self.message}",
            job=self.job,
            reason=self.reason,
            error=self.error,
            message=self.message,
            traceback=self.traceback,
        )


class Cancelled(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a job that was cancelled before it had another outcome."""

    job: str

    def get(self) -> Prediction:
        """Raise JobCancelled."""
        raise JobCancelled(
            f"job {self.job} was cancelled",
            job=self.job,
            reason="cancelled",
            error="TaskRevokedError",
            message="the job was cancelled",
        )


class Expired(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a job that was not started before its deadline."""

    job: str

    def get(self) -> Prediction:
        """Raise JobExpired."""
        raise JobExpired(
            f"job {self.job} expired: it was not started before its deadline",
            job=self.job,
            reason="expired",
            error="TaskRevokedError",
            message="the job was not started before its deadline",
        )


Outcome = Success | Failure | Cancelled | Expired

_STATUS: dict[type[Any], Status] = {
    Success: "success",
    BulkSuccess: "success",
    Failure: "failure",
    Cancelled: "cancelled",
    Expired: "expired",
}


def outcome_status(outcome: Outcome) -> Status:
    """Return the status of a job with this outcome."""
    return _STATUS[type(outcome)]


class OutcomeLinks(msgspec.Struct, frozen=True, kw_only=True):
    """The tasks that a job is connected with, as Celery stores them with a result."""

    #: The tasks that the job started: for each its id, its parent and the results of a group, as nested lists.
    children: list[Any] = []
    parent_id: str | None = None
    group_id: str | None = None


def encode_outcome(
    outcome: Outcome,
    now: datetime,
    *,
    execution: msgspec.Raw | None = None,
    worker: str | None = None,
    links: OutcomeLinks | None = None,
) -> bytes:
    """Return an outcome in the form in which Celery stores a result.

    `execution` is the encoded `headrace.wire.execution.Execution`, `worker` the name of the worker.
    """
    meta: dict[str, Any] = {
        "status": "SUCCESS",
        "result": None,
        "traceback": None,
        "children": [],
        "date_done": now.isoformat(),
        "task_id": outcome.job,
    }
    match outcome:
        case BulkSuccess():
            meta["result"] = outcome.receipt
        case Success():
            meta["result"] = outcome.prediction
        case Failure():
            meta["status"] = "FAILURE"
            meta["result"] = _exception(outcome.error, outcome.module, outcome.message)
            meta["traceback"] = outcome.traceback
            meta["reason"] = outcome.reason
        case Cancelled() | Expired():
            message = "expired" if isinstance(outcome, Expired) else "revoked"
            meta["status"] = "REVOKED"
            meta["result"] = _exception("TaskRevokedError", "celery.exceptions", message)
    if execution is not None:
        meta["execution"], meta["worker"] = execution, worker
    if links is not None:
        meta["children"] = links.children
        meta |= {"parent_id": links.parent_id} if links.parent_id else {}
        meta |= {"group_id": links.group_id} if links.group_id else {}
    return msgspec.json.encode(meta)


def _exception(name: str, module: str, message: str) -> dict[str, Any]:
    return {"exc_type": name, "exc_message": [message], "exc_module": module}


class _Stored(msgspec.Struct):
    status: str
    task_id: str
    result: Any = None
    traceback: str | None = None
    reason: str | None = None


class _StoredSuccess(msgspec.Struct, gc=False):
    status: Literal["SUCCESS"]
    task_id: str
    result: Prediction


_STORED = msgspec.json.Decoder(_Stored)
_STORED_SUCCESS = msgspec.json.Decoder(_StoredSuccess)

# The errors that Celery itself stores when a pool process dies or exceeds a time limit.
_CELERY_REASONS: dict[str, Reason] = {
    "WorkerLostError": "crash",
    "Terminated": "crash",
    "TimeLimitExceeded": "timeout",
    "SoftTimeLimitExceeded": "timeout",
    "NotRegistered": "malformed",
}


def decode_outcome(stored: bytes) -> Outcome | None:
    """Decode the value of a result key; return None for a state that is no outcome (STARTED, RETRY).

    Raises one of DECODE_ERRORS for a value that neither Headrace nor Celery stored.
    """
    # Most outcomes are successes, and decoding these into their own type takes half the time.
    with suppress(msgspec.ValidationError):
        success = _STORED_SUCCESS.decode(stored)
        return Success(job=success.task_id, prediction=success.result)
    meta = _STORED.decode(stored)
    match meta.status:
        case "SUCCESS":
            if isinstance(meta.result, dict) and "predictions" not in meta.result and "rows" in meta.result:
                return BulkSuccess(job=meta.task_id, receipt=msgspec.convert(meta.result, Receipt))
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
    message = result.get("exc_message") if isinstance(result, dict) else result
    if isinstance(message, list | tuple):
        return " ".join(map(str, message))
    return "" if message is None else str(message)


def decode_lines(message: bytes) -> list[Outcome]:
    """Return the outcomes in a message on a reply channel, one a line.

    Invalid lines are skipped: the client also reads the result keys of its jobs.
    """
    outcomes: list[Outcome] = []
    for line in message.splitlines():
        with suppress(*DECODE_ERRORS):
            outcome = decode_outcome(line)
            if outcome is not None:
                outcomes.append(outcome)
    return outcomes


def decode_by_job(stored: Mapping[str, object]) -> dict[str, Outcome]:
    """Return the outcomes among the values of result keys, by job id. A value that is not bytes is skipped."""
    return {
        job: outcome
        for job, value in stored.items()
        if isinstance(value, bytes) and (outcome := decode_or_malformed(job, value)) is not None
    }


def decode_or_malformed(job: str, stored: bytes) -> Outcome | None:
    """Decode the value of a result key as `decode_outcome`; an invalid value becomes a failure of the job."""
    try:
        return decode_outcome(stored)
    except DECODE_ERRORS:
        return Failure(
            job=job,
            reason="malformed",
            error="InvalidResult",
            module="headrace",
            message="what is stored as the job's result is no outcome of Headrace; does another task have its id?",
        )
