"""A claim as one message to Celery, which supervises it like any task: 64 jobs cost Celery as much as one.

The body is the claim in MessagePack, with the message of every job as it was queued. So the event loop neither
reads nor writes JSON; the pool process decodes the jobs. To Celery's main process, a claim has no arguments: it
would decode them, and send them to the pool process a second time, in the headers of the task.

The body begins with a word that only this worker's processes know: the pool decodes no claim of anybody else, even
if it got past the transport, which refuses it (`ordinary_message`).
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Sequence
from typing import Any

import msgspec
from kombu import serialization
from kombu.transport import virtual

from headrace.wire.queues import model_name
from headrace_worker.transport.claims import Claim

#: The Celery task that runs a claim.
CLAIM_TASK = "headrace.claim"
#: The content type of the body, and the name of its serializer at kombu.
CONTENT_TYPE = "application/x-headrace-claim"
SERIALIZER = "headrace-claim"

#: Made before the pool forks, so its processes share it.
_SECRET = secrets.token_bytes(16)
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Claim)


def claim_message(claim: Claim, time_limits: Sequence[float | None] = (None, None)) -> dict[str, Any]:
    """Build the message that kombu gives to Celery. Its delivery tag is the name of the lease.

    `time_limits` are seconds, the hard limit and the soft one: Celery's pool enforces them.
    """
    name, queue = claim.lease.name, claim.lease.queue
    jobs = len(claim.queued_messages)
    return {
        "body": _SECRET + _ENCODER.encode(claim),
        "content-type": CONTENT_TYPE,
        "content-encoding": "binary",
        "headers": {
            "lang": "py",
            "task": CLAIM_TASK,
            "id": name,
            "root_id": name,
            "parent_id": None,
            "group": None,
            "retries": 0,
            "eta": None,
            "expires": None,
            "timelimit": [*time_limits],
            "argsrepr": f"{model_name(queue)}, {jobs} job{'' if jobs == 1 else 's'}",
            "kwargsrepr": "{}",
            "origin": None,
            "ignore_result": True,
        },
        "properties": {
            "correlation_id": name,
            "reply_to": None,
            "delivery_tag": name,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "body_encoding": None,
        },
    }


class Message(virtual.Message):  # type: ignore[misc]  # kombu has no types
    """A message as the transport gives it to Celery: a claim, or that of an ordinary task."""

    @property
    def payload(self) -> Any:
        """The args, kwargs and embedded options of the task; all empty for a claim."""
        return ((), {}, {}) if self.content_type == CONTENT_TYPE else super().payload

    def decode_claim(self) -> Claim | None:
        """Return the claim; None for the message of an ordinary task."""
        return _decode_claim(self.body) if self.content_type == CONTENT_TYPE else None


def _decode_body(body: bytes) -> tuple[tuple[Claim], dict[str, Any], dict[str, Any]]:
    """Decode the body of Celery protocol 2: args, kwargs and embedded options. Raises ValueError."""
    return (_decode_claim(body),), {}, {}


def _decode_claim(body: bytes) -> Claim:
    view = memoryview(body)
    if not hmac.compare_digest(view[: len(_SECRET)], _SECRET):
        raise ValueError("the claim was not made by this worker's transport")
    return _DECODER.decode(view[len(_SECRET) :])


def _refuse_encoding(value: object) -> bytes:  # pragma: no cover  # Celery serializes no result of a claim
    raise TypeError(f"the serializer of claims cannot encode a {type(value).__name__}")


serialization.register(
    SERIALIZER,
    _refuse_encoding,  # type: ignore[arg-type]  # celery-types knows serializers of text only
    _decode_body,  # type: ignore[arg-type]  # as above
    content_type=CONTENT_TYPE,
    content_encoding="binary",
)
