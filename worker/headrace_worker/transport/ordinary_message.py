"""The message of an ordinary Celery task, as it goes through the transport: not a job, one message to a claim.

Anybody who may write to the queue wrote it. Celery and kombu fail on messages of some forms in the middle of the
worker's event loop, so their form is checked here. A message that pretends to be a claim is refused: only this
transport makes claims.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from kombu import compression, serialization
from kombu.utils.json import loads

from headrace_worker.transport.message import CLAIM_TASK, CONTENT_TYPE

_JSON = "application/json"


class RefusedMessage(ValueError):
    """A message of an ordinary queue that Celery is not given."""


def decode_ordinary(queued_message: bytes, delivery_tag: str) -> dict[str, Any]:
    """Return the message for Celery, with its delivery tag. Raises RefusedMessage."""
    try:
        message = loads(queued_message.decode())
    except Exception as error:  # noqa: BLE001  # kombu's typed values raise errors of many types
        raise RefusedMessage(f"not JSON as kombu writes it: {type(error).__name__}") from None
    body, headers = _check_form(message)
    if message.get("content-type") == CONTENT_TYPE or _find_task(message, headers, body) == CLAIM_TASK:
        raise RefusedMessage(
            f"it pretends to be a claim ({CLAIM_TASK}), which only the transport of a worker makes"
        )
    message["properties"]["delivery_tag"] = delivery_tag
    return dict(message)


def _check_form(message: Any) -> tuple[bytes, dict[str, Any]]:
    """Return the body and the headers of a message. Raises RefusedMessage for a form on which kombu fails."""
    if not isinstance(message, dict):
        raise RefusedMessage("not a JSON object")
    properties, headers, body = message.get("properties"), message.get("headers"), message.get("body") or ""
    if not isinstance(properties, dict) or not isinstance(properties.get("delivery_info") or {}, dict):
        raise RefusedMessage("its properties are not those of a message")
    if not isinstance(headers or {}, dict):
        raise RefusedMessage("its headers are no JSON object")
    if not isinstance(body, str | bytes):
        raise RefusedMessage("its body is no text")
    match properties.get("body_encoding"):
        case "base64":
            try:
                body = base64.b64decode(body)
            except ValueError:
                raise RefusedMessage("its body is not base64") from None
        case None | "":
            body = body if isinstance(body, bytes) else body.encode(errors="surrogatepass")
        case _:
            raise RefusedMessage("its body_encoding is not base64")
    return body, headers or {}


def _find_task(message: dict[str, Any], headers: dict[str, Any], body: bytes) -> str | None:
    """Return the name of the task, which Celery's protocol 1 writes into the body; None if it cannot be read."""
    if "task" in headers:
        return _check_task(headers["task"])
    try:
        if compressed := headers.get("compression"):
            body = compression.decompress(body, compressed)
        payload = serialization.loads(
            body, message.get("content-type") or "", message.get("content-encoding") or "", accept={_JSON}
        )
    except Exception:  # noqa: BLE001  # Celery reads it in the same way, and refuses it
        return None
    return _check_task(payload["task"]) if isinstance(payload, dict) and "task" in payload else None


def _check_task(task: Any) -> str:
    if not isinstance(task, str):
        raise RefusedMessage("the name of its task is no text")
    return task


def mark_redelivered(queued_message: bytes) -> bytes:
    """Return the message marked as delivered before, as brokers mark it; other bytes are returned unchanged.

    Celery and tasks that reject their message look at the mark, to leave out what has succeeded.
    """
    try:
        message = json.loads(queued_message)
        message["headers"]["redelivered"] = True
        message["properties"]["delivery_info"]["redelivered"] = True
        return json.dumps(message).encode()
    except (ValueError, KeyError, TypeError, RecursionError):
        return queued_message
