"""The header Idempotency-Key: one key of a caller is one job, however often the call is repeated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import Request

from headrace.errors import JobConflict
from headrace_gateway.callers import Caller
from headrace_gateway.jobs import own_id
from headrace_gateway.problems import Problem

#: The most characters of a key.
_MAX_LENGTH = 255


def key_of(request: Request, caller: Caller) -> str | None:
    """Return the id of the job that the key of a request names; None without one. Raises a Problem: 400.

    The key is a text of your own, such as the number of an order or a UUID, in quotes or without.
    """
    text = request.headers.get("idempotency-key")
    if text is None:
        return None
    key = text.strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not 0 < len(key) <= _MAX_LENGTH:
        raise Problem(400, "invalid-id", f"Idempotency-Key is a text of 1 to {_MAX_LENGTH} characters of your own")
    return own_id(caller, key)


@contextmanager
def refusing_reuse(key: str | None) -> Iterator[None]:
    """Turn a conflict of a job with an Idempotency-Key into a Problem: 422."""
    try:
        yield
    except JobConflict:
        if key is None:
            raise
        raise Problem(
            422,
            "idempotency-key-reused",
            "this Idempotency-Key was used for another model, version, method or input; a new request needs a "
            "new key",
            more={"id": key},
        ) from None
