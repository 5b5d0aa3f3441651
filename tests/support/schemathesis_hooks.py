"""Changes to the requests of schemathesis. It loads this module by the name in `schemathesis.toml`."""

from __future__ import annotations

import itertools
import os
from typing import Any

import schemathesis

_NUMBERS = itertools.count(1)


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Change what a JSON schema cannot say, in requests that fit it.

    Each gets an Idempotency-Key of its own, as one key with two bodies is refused. A job that expires has no
    delay, as one that would expire before its delay is over is refused. None names an endpoint to notify, as
    their names are the operator's.
    """
    if not (case.meta and case.meta.generation.mode.is_positive):
        return
    headers, body = case.headers or {}, case.body
    if headers.get("Idempotency-Key"):
        headers["Idempotency-Key"] = f"{os.getpid()}-{next(_NUMBERS)}"
    if isinstance(body, dict):
        body.pop("notify", None)
        if isinstance(body.get("parameters"), dict) and body["parameters"].get("expires"):
            body.pop("delay", None)
