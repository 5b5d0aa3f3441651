"""The job as a message: what a job is, and how it lies in Redis.

On the wire a job is a Celery protocol-2 message in kombu's Redis envelope, as `Celery.send_task` writes it less
the optional headers that say nothing of a job (stamps, nesting, its place in a group): any Celery client can send
one, and any Celery tool can read one. Sources: Celery's "Message Protocol" page; `kombu.transport.virtual.base`.
"""

from __future__ import annotations

import binascii
import os
import re
import socket
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from headrace.errors import InvalidInput
from headrace.wire.keys import TASK, queue_name
from headrace.wire.signing import SIGNATURE_HEADER, JobKeys

#: One record to predict on: named features, a list of values (nested for images), or a text.
Instance = dict[str, Any] | list[Any] | str | float


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A request to one model: 1..N instances, an id, options."""

    id: str
    model: str
    instances: Sequence[Instance]
    #: Version of the model, a number as text; None takes the newest the worker serves.
    version: str | None = None
    #: Method of the estimator; None takes the version's default.
    method: str | None = None
    #: 0 (first) to 9 (last).
    priority: int = 0
    #: Not started after this moment.
    expires: datetime | None = None
    #: Not started before this moment.
    eta: datetime | None = None
    #: The inbox of the client that submitted it (`Keys.inbox`).
    reply_to: str | None = None
    #: The submitter's own words about the job; they travel with it and come back with its status.
    metadata: dict[str, str] | None = None
    #: The trace it belongs to, as headers of the message (TRACE); None where it belongs to none.
    trace: dict[str, str] | None = None


#: Headers that carry a trace: those of W3C, and Sentry's. Instrumented Celery clients write the same.
TRACE_HEADERS = ("traceparent", "tracestate", "sentry-trace", "baggage")


class TaskOptions(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The keyword arguments of the task."""

    version: str | None = None
    method: str | None = None
    metadata: dict[str, str] | None = None


_ORIGIN = f"{os.getpid()}@{socket.gethostname()}"
_EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def new_id() -> str:
    """A fresh job id: a UUID of version 7, so that it tells when the job was submitted without a byte more."""
    chance = int.from_bytes(os.urandom(10), "big") & _NO_VERSION | _VERSION_7
    text = f"{time.time_ns() // 1_000_000:012x}{chance:020x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


# The bits in which RFC 9562 has a UUID tell its version and variant; its last 80 here.
_NO_VERSION = ~((0xF << 76) | (0x3 << 62))
_VERSION_7 = (0x7 << 76) | (0x2 << 62)
_SUBMITTED = re.compile(r"([0-9a-f]{8})-([0-9a-f]{4})-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def submission_time(job: str) -> datetime | None:
    """When the job of that id was submitted, by its submitter's clock; None where the id does not tell."""
    found = _SUBMITTED.fullmatch(job)
    if found is None:
        return None
    try:
        return datetime.fromtimestamp(int(found[1] + found[2], 16) / 1000, UTC)
    except (ValueError, OverflowError):  # somebody's own id, of a year beyond 9999
        return None


def encode_instances(instances: Sequence[Any]) -> bytes:
    """Instances as JSON. numpy scalars and arrays become numbers and lists; NaN becomes null.

    Raises InvalidInput for what JSON cannot hold.
    """
    try:
        encoded = _INSTANCES.encode(instances)
        # A Decimal that is not finite comes out as no JSON; a text may well hold the word. A letter is found
        # faster than a word, and numbers have neither.
        if (b"N" in encoded or b"I" in encoded) and (b"NaN" in encoded or b"Infinity" in encoded):
            msgspec.json.decode(encoded)
        return encoded
    except msgspec.DecodeError:
        raise InvalidInput(
            "an instance holds a Decimal that is not finite; use None for a missing value"
        ) from None
    except RecursionError:
        raise InvalidInput("an instance is nested too deeply to be sent as JSON") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(f"an instance cannot be sent as JSON: {error}") from None


def _plain(value: Any) -> Any:
    # numpy scalars and arrays, without importing numpy: the client stays light.
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} is no JSON value; convert it to a number, string, list or object")


# A Decimal, as databases give them, is a number, not a text.
_INSTANCES = msgspec.json.Encoder(enc_hook=_plain, decimal_format="number")


def encode_message(job: Job, keys: JobKeys | None = None) -> bytes:
    """The message of a job, as it is pushed on a list; signed, with keys."""
    return message_template(job, keys).render(job.id, encode_instances(job.instances))


class MessageTemplate(msgspec.Struct, frozen=True):
    """A message, but for the id and the instances of its job: jobs that differ in these alone share it."""

    #: The body, up to its instances and from there on.
    body_head: bytes
    body_tail: bytes
    #: The message, up to its body, and from there on, cut where the id stands.
    before_body: bytes
    between_ids: list[bytes]
    #: What signs the jobs, if anything does, and their deadline: the signature comes first among the headers.
    keys: JobKeys | None = None
    expires: str | None = None

    def render(self, job: str, instances: bytes) -> bytes:
        """The message of a job; its instances are given as JSON."""
        body = binascii.b2a_base64(self.body_head + instances + self.body_tail, newline=False)
        if self.keys is None:
            return self.before_body + body + job.encode().join(self.between_ids)
        first, *rest = self.between_ids
        signature = b'"%b":"%b",' % (SIGNATURE_HEADER.encode(), self.keys.sign(job, self.expires, body))
        first = first.replace(_HEADERS, _HEADERS + signature, 1)
        return self.before_body + body + job.encode().join([first, *rest])


def message_template(job: Job, keys: JobKeys | None = None) -> MessageTemplate:
    """The form of jobs like this one, signed with keys where there are any."""
    plain = _formed(job)
    if keys is None:
        return plain
    return msgspec.structs.replace(plain, keys=keys, expires=_moment_text(job.expires))


def _formed(job: Job) -> MessageTemplate:
    options = TaskOptions(version=job.version, method=job.method, metadata=job.metadata)
    plain = _form(
        job.model,
        msgspec.json.encode(options),
        describe_job(job.model, job.version, len(job.instances)),
        job.reply_to or "",
        job.priority,
        _moment_text(job.eta),
        _moment_text(job.expires),
    )
    if not job.trace:
        return plain
    # Another for each call, so that it is in no form that is kept.
    first, *rest = plain.between_ids
    headers = _HEADERS + msgspec.json.encode(job.trace)[1:-1] + b","
    return msgspec.structs.replace(plain, between_ids=[first.replace(_HEADERS, headers, 1), *rest])


def _moment_text(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).isoformat() if moment is not None else None


#: How the headers begin in a form.
_HEADERS = b'"headers":{'
#: Stand in a form where a job's own body and id belong. Nobody can have guessed them.
_BODY_MARK, _ID_MARK = uuid.uuid4().hex, uuid.uuid4().hex


@lru_cache(maxsize=256)
def _form(  # noqa: PLR0917  # all of them are the key of the cache
    model: str,
    options: bytes,
    description: str,
    reply_to: str,
    priority: int,
    eta: str | None,
    expires: str | None,
) -> MessageTemplate:
    head = b"[[%b," % msgspec.json.encode(model)
    tail = b"],%b,%b]" % (options, msgspec.json.encode(_EMBED))
    message = msgspec.json.encode(
        {
            "body": _BODY_MARK,
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {
                "lang": "py",
                "task": TASK,
                "id": _ID_MARK,
                "eta": eta,
                "expires": expires,
                "group": None,
                "retries": 0,
                "timelimit": [None, None],
                "root_id": _ID_MARK,
                "parent_id": None,
                # What Flower and the logs show of the arguments: never the instances themselves.
                "argsrepr": description,
                "kwargsrepr": "{}",
                "origin": _ORIGIN,
                "ignore_result": False,
            },
            "properties": {
                "correlation_id": _ID_MARK,
                "reply_to": reply_to,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": queue_name(model)},
                "priority": priority,
                "body_encoding": "base64",
                # Of a message, not of a job, to kombu; but a job has one message.
                "delivery_tag": _ID_MARK,
            },
        }
    )
    before, rest = message.split(_BODY_MARK.encode())
    return MessageTemplate(head, tail, before, rest.split(_ID_MARK.encode()))


def describe_job(model: str, version: str | None, instances: int) -> str:
    """A job in a few words, without its payload: `churn@3, 2 instances`."""
    named = f"{model}@{version}" if version else model
    return f"{named}, {instances} instance{'' if instances == 1 else 's'}"
