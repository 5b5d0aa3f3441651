"""A job, and how it is written as a message.

On the wire a job is a Celery protocol-2 message in kombu's Redis envelope, as `Celery.send_task` writes it,
without the optional headers that mean nothing for a job (stamps, nesting, groups). So any Celery client can send
a job, and any Celery tool can read it. Sources: Celery's "Message Protocol" page; `kombu.transport.virtual.base`.
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
from headrace.wire.bulk import BULK_TASK, Step, describe_step
from headrace.wire.columns import Columns
from headrace.wire.queues import TASK, bulk_queue_name, queue_name
from headrace.wire.signing import SIGNATURE_HEADER, JobKeys, SignedContent

#: A record to predict on: named features, a list of values (nested for images), or a text.
Instance = dict[str, Any] | list[Any] | str | float


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A request to a model: an id, one or more instances, and options."""

    id: str
    model: str
    instances: Sequence[Instance]
    #: Version of the model: a number as text, or an alias. None: see `headrace.catalog.aliases`.
    version: str | None = None
    #: Method of the estimator. None: the default method of the version.
    method: str | None = None
    #: From 0 (first) to 9 (last).
    priority: int = 0
    #: The job is not started after this moment.
    expires: datetime | None = None
    #: The job is not started before this moment.
    eta: datetime | None = None
    #: The client whose reply channel gets the outcome (`Keys.reply_channel`).
    reply_to: str | None = None
    #: Text pairs of the submitter's own. They are stored with the job and shown with its status.
    metadata: dict[str, str] | None = None
    #: The caller of the HTTP gateway that the job belongs to, the endpoint that is notified of its outcome, and
    #: the listeners that receive it. They are in the record; headers of the message keep them for a replay.
    owner: str | None = None
    notify: str | None = None
    listen: str | None = None
    #: The trace of the job, as headers of the message (TRACE_HEADERS).
    trace: dict[str, str] | None = None
    #: The step of a bulk run; then there are no instances. None for any other job.
    step: Step | None = None

    @property
    def queue(self) -> str:
        """The queue that the job belongs to."""
        return queue_name(self.model) if self.step is None else bulk_queue_name(self.model)

    @property
    def trace_id(self) -> str | None:
        """The id of the job's trace, 32 hexadecimal digits; None where it has none."""
        headers = self.trace or {}
        match = _TRACEPARENT.match(headers.get("traceparent", "")) or _SENTRY_TRACE.match(
            headers.get("sentry-trace", "")
        )
        return match[1] if match else None


#: Headers that carry a trace: W3C's and Sentry's. Instrumented Celery clients write the same headers.
TRACE_HEADERS = ("traceparent", "tracestate", "sentry-trace", "baggage")
#: The trace in W3C's header (version, trace, span, flags), and in Sentry's (trace, span).
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-")
_SENTRY_TRACE = re.compile(r"([0-9a-f]{32})-[0-9a-f]{16}")
#: Headers that keep the owner of a job, the endpoint of its notice and its listeners. Workers, Celery's too, pass
#: over them.
OWNER_HEADER, NOTIFY_HEADER, LISTEN_HEADER = "headrace-owner", "headrace-notify", "headrace-listen"


class TaskOptions(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The keyword arguments of the Celery task."""

    version: str | None = None
    method: str | None = None
    metadata: dict[str, str] | None = None


_ORIGIN = f"{os.getpid()}@{socket.gethostname()}"
_EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def new_id() -> str:
    """Return a new job id: a UUID of version 7, which holds the time of submission."""
    random_bits = int.from_bytes(os.urandom(10), "big") & _VERSION_MASK | _VERSION_7
    text = f"{time.time_ns() // 1_000_000:012x}{random_bits:020x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


# The bits of RFC 9562 for a UUID's version and variant, among the last 80 bits of the UUID.
_VERSION_MASK = ~((0xF << 76) | (0x3 << 62))
_VERSION_7 = (0x7 << 76) | (0x2 << 62)
_UUID_7 = re.compile(r"([0-9a-f]{8})-([0-9a-f]{4})-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def submission_ms(job: str) -> int | None:
    """Return the time of submission in a job id, in unix milliseconds by the submitter's clock.

    None if the id holds none.
    """
    match = _UUID_7.fullmatch(job)
    return None if match is None else int(match[1] + match[2], 16)


def submission_time(job: str) -> datetime | None:
    """Return the time of submission as `submission_ms`, and None for a year beyond 9999 too."""
    milliseconds = submission_ms(job)
    try:
        return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError):
        return None


def encode_instances(instances: Sequence[Any]) -> bytes:
    """Return instances as JSON. numpy scalars and arrays become numbers and lists; NaN becomes null.

    Instances in columns become an object. Raises InvalidInput for a value that JSON cannot represent.
    """
    if isinstance(instances, Columns):
        return instances.encode()
    try:
        encoded = _INSTANCES.encode(instances)
        # A Decimal that is not finite is encoded as NaN or Infinity, which is no JSON; a text may hold the same
        # word. The search for a single letter comes first, as it is faster.
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


def _encode_numpy(value: Any) -> Any:
    # numpy is not imported, so that importing the client stays quick.
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} is no JSON value; convert it to a number, string, list or object")


# A Decimal, the type of many database columns, is encoded as a number.
_INSTANCES = msgspec.json.Encoder(enc_hook=_encode_numpy, decimal_format="number")


def encode_message(job: Job, keys: JobKeys | None = None) -> bytes:
    """Return the message of a job as it is pushed on a list; signed if there are keys."""
    content = encode_instances(job.instances) if job.step is None else msgspec.json.encode(job.step)
    return build_template(job, keys).render(job.id, content)


class MessageTemplate(msgspec.Struct, frozen=True):
    """A message without the id and the instances of its job; jobs that differ only in these share a template."""

    #: The body before and after the instances.
    body_head: bytes
    body_tail: bytes
    #: The message before its body.
    before_body: bytes
    #: The message after its body, cut wherever the id of the job belongs.
    between_ids: list[bytes]
    #: The keys that sign the jobs, if there are any, and the content that is signed besides id and body.
    keys: JobKeys | None = None
    signed: SignedContent | None = None

    def render(self, job: str, instances: bytes) -> bytes:
        """Return the message of a job. `instances` are JSON; of a bulk job, they are its step."""
        body = binascii.b2a_base64(self.body_head + instances + self.body_tail, newline=False)
        if self.keys is None or self.signed is None:
            return self.before_body + body + job.encode().join(self.between_ids)
        first, *others = self.between_ids
        content = msgspec.structs.replace(self.signed, job=job, body=body)
        signature = b'"%b":"%b",' % (SIGNATURE_HEADER.encode(), self.keys.sign(content, time.time()))
        first = first.replace(_HEADERS_START, _HEADERS_START + signature, 1)
        return self.before_body + body + job.encode().join([first, *others])


def build_template(job: Job, keys: JobKeys | None = None) -> MessageTemplate:
    """Return the template of jobs with the same model, options and number of instances as `job`.

    With keys, it signs the messages.
    """
    template = _unsigned_template(job)
    if keys is None:
        return template
    signed = SignedContent(
        job="",
        queue=job.queue,
        reply_to=job.reply_to or "",
        eta=_to_iso(job.eta),
        expires=_to_iso(job.expires),
        body=b"",
    )
    return msgspec.structs.replace(template, keys=keys, signed=signed)


def _unsigned_template(job: Job) -> MessageTemplate:
    options = TaskOptions(version=job.version, method=job.method, metadata=job.metadata)
    template = _cached_template(
        job.model,
        msgspec.json.encode(options),
        describe_job(job.model, job.version, len(job.instances))
        if job.step is None
        else describe_step(job.model, job.step),
        job.step is not None,
        job.reply_to or "",
        job.priority,
        _to_iso(job.eta),
        _to_iso(job.expires),
    )
    more = dict(job.trace or {})
    if job.owner is not None:
        more[OWNER_HEADER] = job.owner
    if job.notify is not None:
        more[NOTIFY_HEADER] = job.notify
    if job.listen is not None:
        more[LISTEN_HEADER] = job.listen
    if not more:
        return template
    # Each call has a trace of its own, so the trace is no part of the cached template.
    first, *others = template.between_ids
    headers = _HEADERS_START + msgspec.json.encode(more)[1:-1] + b","
    return msgspec.structs.replace(template, between_ids=[first.replace(_HEADERS_START, headers, 1), *others])


def _to_iso(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).isoformat() if moment is not None else None


#: The start of the headers in a template.
_HEADERS_START = b'"headers":{'
#: Placeholders for the body and the id of a job. They are random, so no job can contain them.
_BODY_MARK, _ID_MARK = uuid.uuid4().hex, uuid.uuid4().hex


@lru_cache(maxsize=256)
def _cached_template(  # noqa: PLR0917  # all parameters together are the key of the cache
    model: str,
    options: bytes,
    description: str,
    is_bulk: bool,
    reply_to: str,
    priority: int,
    eta: str | None,
    expires: str | None,
) -> MessageTemplate:
    head = b"[[%b," % msgspec.json.encode(model)
    tail = b"],%b,%b]" % (options, msgspec.json.encode(_EMBED))
    queue = bulk_queue_name(model) if is_bulk else queue_name(model)
    message = msgspec.json.encode(
        {
            "body": _BODY_MARK,
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {
                "lang": "py",
                "task": BULK_TASK if is_bulk else TASK,
                "id": _ID_MARK,
                "eta": eta,
                "expires": expires,
                "group": None,
                "retries": 0,
                "timelimit": [None, None],
                "root_id": _ID_MARK,
                "parent_id": None,
                # Flower and the logs show this in place of the arguments: it holds no instances.
                "argsrepr": description,
                "kwargsrepr": "{}",
                "origin": _ORIGIN,
                "ignore_result": False,
            },
            "properties": {
                "correlation_id": _ID_MARK,
                "reply_to": reply_to,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": queue},
                "priority": priority,
                "body_encoding": "base64",
                # kombu wants an id of the message. A job has only one message, so the job's id serves.
                "delivery_tag": _ID_MARK,
            },
        }
    )
    before_body, after_body = message.split(_BODY_MARK.encode())
    return MessageTemplate(head, tail, before_body, after_body.split(_ID_MARK.encode()))


def describe_job(model: str, version: str | None, instances: int) -> str:
    """Return a short description of a job, without its payload: `churn@3, 2 instances`."""
    target = f"{model}@{version}" if version else model
    return f"{target}, {instances} instance{'' if instances == 1 else 's'}"
