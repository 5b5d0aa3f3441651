"""The message of an ordinary Celery task, as it goes through the transport: not a job, one message to a claim."""

from __future__ import annotations

import json
from typing import Any

from kombu.utils.json import loads


def decode_ordinary(queued_message: bytes, delivery_tag: str) -> dict[str, Any]:
    """Return the message for Celery, with its delivery tag.

    Raises ValueError, KeyError or TypeError for bytes that are no message.
    """
    message: dict[str, Any] = loads(queued_message.decode())
    message["properties"]["delivery_tag"] = delivery_tag
    return message


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
