"""The body of a request: what happened to which job, and the predictions where the endpoint wants them."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from headrace.clock import from_unix_ms
from headrace.outcome import Failure, Outcome, Success
from headrace.wire.notice import Notice
from headrace.wire.outcome import decode_outcome, outcome_status
from headrace.wire.stored import DECODE_ERRORS

#: The most bytes of predictions that a body holds.
MAX_PREDICTIONS = 256 * 1024
#: The bytes of an outcome that are read. A longer one has more predictions than a body may hold.
OUTCOME_BYTES = 1024 * 1024

#: The version in the head of a success, where the rest of it was not read.
_VERSION = re.compile(rb'^\{"status":"SUCCESS","result":\{"model":"[^"]*","version":"([0-9]{1,20})"')


def encode_payload(notice: Notice, stored: bytes | None, *, full: bool) -> bytes:
    """Return the JSON body of the request for a notice.

    `stored` is the outcome, its first OUTCOME_BYTES if it is longer, None if it is no longer there. The same
    notice and outcome give the same bytes.
    """
    content = notice.content
    data: dict[str, Any] = {
        "id": content.job,
        "model": content.record.model,
        "version": None,
        "status": content.status,
        "metadata": content.record.metadata,
    }
    if stored is not None:
        data |= _describe_outcome(notice, stored, full=full)
    elif full and content.status == "success":
        data["predictions_omitted"] = "gone"
    timestamp = from_unix_ms(content.at_ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return msgspec.json.encode({"type": f"job.{content.status}", "timestamp": timestamp, "data": data})


def _describe_outcome(notice: Notice, stored: bytes, *, full: bool) -> dict[str, Any]:
    status = notice.content.status
    if len(stored) >= OUTCOME_BYTES:
        match = _VERSION.match(stored)
        members: dict[str, Any] = {"version": match[1].decode()} if match and status == "success" else {}
        return members | ({"predictions_omitted": "too long"} if full and status == "success" else {})
    outcome = _decode(stored)
    if outcome is None or outcome_status(outcome) != status:
        # The job was replayed since: its new outcome has a notice of its own.
        return {"predictions_omitted": "gone"} if full and status == "success" else {}
    match outcome:
        case Success(prediction=prediction):
            members = {"version": prediction.version}
            if full:
                members |= _predictions(prediction)
            return members
        case Failure():
            return {"reason": outcome.reason, "error": outcome.error}
        case _:
            return {}


def _decode(stored: bytes) -> Outcome | None:
    try:
        return decode_outcome(stored)
    except DECODE_ERRORS:
        return None


def _predictions(prediction: Any) -> dict[str, Any]:
    encoded = msgspec.json.encode(prediction.predictions)
    if len(encoded) > MAX_PREDICTIONS:
        return {"predictions_omitted": "too long"}
    members: dict[str, Any] = {"predictions": msgspec.Raw(encoded)}
    if prediction.classes is not None:
        members["classes"] = prediction.classes
    if prediction.errors is not None:
        members["errors"] = prediction.errors
    return members
