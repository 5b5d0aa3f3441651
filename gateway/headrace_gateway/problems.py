"""Every error as problem+json (RFC 9457): what went wrong, where, and what to do. No message repeats a value.

`error` equals `detail`: clients of Open Inference and MLServer read it.
"""

from __future__ import annotations

import http
import random
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from starlette.responses import Response

from headrace.errors import (
    BrokerUnavailable,
    HeadraceError,
    InvalidInput,
    JobCancelled,
    JobConflict,
    JobExpired,
    JobFailed,
    NotDurable,
    QueueFull,
    UnknownModel,
)
from headrace_gateway.problem_types import TYPES, title_of

_MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """An error answer. `kind` is the last part of its type's address; `more` are further members."""

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        title: str | None = None,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.kind, self.detail = status, kind, detail
        self.title = title or title_of(kind) or http.HTTPStatus(status).phrase
        self.errors, self.headers, self.more = list(errors), dict(headers or {}), dict(more or {})

    def response(self, instance: str | None = None) -> Response:
        """Return the answer. `instance` is the path of the request."""
        members: dict[str, Any] = {
            "type": TYPES + self.kind,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "error": self.detail,
        }
        if instance is not None:
            members["instance"] = instance
        if self.errors:
            members["errors"] = self.errors
        return Response(
            msgspec.json.encode(members | self.more), self.status, headers=self.headers, media_type=_MEDIA_TYPE
        )


#: Problem and status of a failed job, by the reason of its failure.
_FAILURES = {
    "bad input": (422, "invalid-input"),
    "unknown model": (404, "unknown-model"),
    "timeout": (504, "model-timeout"),
}


def problem_of(error: HeadraceError, *, job: str | None = None, retry_after: int | None = None) -> Problem:
    """Return the problem of an error of a submit, or of a job's outcome.

    `job` is the id of the job that was submitted: an answer that asks to repeat the call tells it. `retry_after`
    is in seconds; None is one to three.
    """
    text = str(error)
    match error:
        case JobCancelled():
            return Problem(409, "cancelled", text, more={"id": error.job})
        case JobExpired():
            return Problem(504, "expired", text, more={"id": error.job})
        case JobFailed():
            status, kind = _FAILURES.get(error.reason, (500, "model-failed"))
            more = {"id": error.job, "reason": error.reason, "exception": error.error}
            return Problem(status, kind, text, more=more)
        case UnknownModel():
            return Problem(404, "unknown-model", text)
        case JobConflict():
            return Problem(409, "job-conflict", text)
        case InvalidInput():
            errors = [{"pointer": pointer, "detail": problem} for pointer, problem in error.problems]
            return Problem(422, "invalid-input", text, errors=errors)
        case QueueFull():
            return _repeatable("queue-full", text, job, retry_after)
        case NotDurable():
            return _repeatable("not-durable", text, job, retry_after)
        case BrokerUnavailable():
            return _repeatable("broker-unavailable", text, job, retry_after)
    return Problem(500, "internal", "the gateway failed; its log has the cause")


def _repeatable(kind: str, text: str, job: str | None, retry_after: int | None) -> Problem:
    """Return a problem, 503, that passes: the caller repeats the call under the same id."""
    seconds = random.randint(1, 3) if retry_after is None else retry_after  # noqa: S311  # spreads repeats, no secret
    headers = {"Retry-After": str(seconds)}
    if job is None:
        return Problem(503, kind, text, headers=headers)
    text += f'. Repeat it as PUT /v1/jobs/{job} with the same input and its "model": it will be one job'
    return Problem(503, kind, text, headers=headers | {"Headrace-Job": job}, more={"id": job})
