"""The job as a message: what a job is, and how it lies in Redis.

On the wire a job is a Celery protocol-2 message in kombu's Redis envelope, byte for byte what
`Celery.send_task("headrace.predict", ...)` would have written, so any Celery client can send one and any
Celery tool can read one. Sources: Celery's "Message Protocol" page; `kombu.transport.virtual.base`.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import socket
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from headrace.errors import InvalidInput
from headrace.queues import TASK, queue_name

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


class Options(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The keyword arguments of the task."""

    version: str | None = None
    method: str | None = None
    metadata: dict[str, str] | None = None


_NO_OPTIONS = Options()
_ORIGIN = f"{os.getpid()}@{socket.gethostname()}"
_EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def new_id() -> str:
    """A fresh job id: a random UUID, in a third of the time `uuid.uuid4` takes."""
    number = int.from_bytes(os.urandom(16), "big") & _NO_VERSION | _VERSION_4
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


# The bits in which RFC 9562 has a UUID tell its version and variant.
_NO_VERSION = ~((0xF << 76) | (0x3 << 62))
_VERSION_4 = (0x4 << 76) | (0x2 << 62)


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


def encode(job: Job) -> bytes:
    """The message of a job, as it is pushed on a list."""
    return form(job).fill(job.id, encode_instances(job.instances))


class Form(msgspec.Struct, frozen=True):
    """A message, but for the id and the instances of its job: jobs that differ in these alone share it."""

    #: The body, up to its instances and from there on.
    head: bytes
    tail: bytes
    #: The message, up to its body, and from there on, cut where the id stands.
    before: bytes
    between_ids: list[bytes]

    def fill(self, job: str, instances: bytes) -> bytes:
        """The message of a job; its instances are given as JSON."""
        body = binascii.b2a_base64(self.head + instances + self.tail, newline=False)
        return self.before + body + job.encode().join(self.between_ids)


def form(job: Job) -> Form:
    """The form of jobs like this one."""
    options = Options(version=job.version, method=job.method, metadata=job.metadata)
    return _form(
        job.model,
        msgspec.json.encode(options),
        describe(job.model, job.version, len(job.instances)),
        job.reply_to or "",
        job.priority,
        job.eta and job.eta.astimezone(UTC).isoformat(),
        job.expires and job.expires.astimezone(UTC).isoformat(),
    )


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
) -> Form:
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
                "shadow": None,
                "eta": eta,
                "expires": expires,
                "group": None,
                "group_index": None,
                "retries": 0,
                "timelimit": [None, None],
                "root_id": _ID_MARK,
                "parent_id": None,
                # What Flower and the logs show of the arguments: never the instances themselves.
                "argsrepr": description,
                "kwargsrepr": "{}",
                "origin": _ORIGIN,
                "ignore_result": False,
                "replaced_task_nesting": 0,
                "stamped_headers": None,
                "stamps": {},
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
    return Form(head, tail, before, rest.split(_ID_MARK.encode()))


def describe(model: str, version: str | None, rows: int) -> str:
    """A job in a few words, without its payload: `churn@3, 2 instances`."""
    named = f"{model}@{version}" if version else model
    return f"{named}, {rows} instance{'' if rows == 1 else 's'}"


class NotAJob(ValueError):
    """The bytes are no message of a job: there is no id an outcome could be stored under."""


class Sealed(msgspec.Struct, frozen=True):
    """A message opened, its arguments not looked at yet."""

    id: str
    args: Sequence[Any]
    kwargs: dict[str, Any]
    eta: Any
    expires: Any
    priority: int
    #: The inbox of the client that submitted it, where it has one.
    reply_to: str | None

    def job(self) -> Job:
        """The job in it. Raises InvalidInput if its arguments are no job's."""
        return from_task(
            self.id, self.args, self.kwargs, eta=self.eta, expires=self.expires, priority=self.priority
        )


class _Properties(msgspec.Struct):
    body_encoding: str | None = None
    priority: int | None = None
    reply_to: str | None = None


class _Headers(msgspec.Struct):
    # What else stands there is not even read: a quarter of what opening a message costs.
    id: Any = None
    task: Any = None
    eta: Any = None
    expires: Any = None


class _Message(msgspec.Struct):
    body: str
    headers: _Headers
    properties: _Properties


_INBOX = re.compile("[0-9a-f]{32}")
_MESSAGE = msgspec.json.Decoder(_Message)
_BODY = msgspec.json.Decoder(tuple[list[Any], dict[str, Any], Any])


@lru_cache(maxsize=1024)
def _is_inbox(reply_to: str) -> bool:
    return _INBOX.fullmatch(reply_to) is not None


def unseal(message: bytes) -> Sealed:
    """Open a message as it lies in Redis, whichever Celery client wrote it. Raises NotAJob."""
    try:
        raw = _MESSAGE.decode(message)
        body = base64.b64decode(raw.body) if raw.properties.body_encoding == "base64" else raw.body
        args, kwargs, _ = _BODY.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise NotAJob(f"no Celery message of JSON: {error}") from None
    headers = raw.headers
    job = headers.id
    if headers.task != TASK or not isinstance(job, str) or not job:
        raise NotAJob(f"no message of the task {TASK} with an id")
    inbox = raw.properties.reply_to
    # Celery's own clients write something else there.
    reply_to = inbox if inbox and _is_inbox(inbox) else None
    return Sealed(job, args, kwargs, headers.eta, headers.expires, raw.properties.priority or 0, reply_to)


def from_task(
    job: str,
    args: Sequence[Any],
    kwargs: dict[str, Any],
    *,
    eta: Any = None,
    expires: Any = None,
    priority: int = 0,
) -> Job:
    """The job a Celery message carries, whoever sent it. Raises InvalidInput if its arguments are no job's.

    `eta` and `expires` are the message's headers of these names: ISO 8601 texts, or None.
    """
    match args:
        case [str() as model, list() as instances]:
            pass
        case _:
            raise InvalidInput(
                "a job's arguments are [model, instances]: a model's name, and a list of instances; "
                f"got [{', '.join(type(arg).__name__ for arg in args)}]"
            )
    try:
        options = msgspec.convert(kwargs, Options) if kwargs else _NO_OPTIONS
    except msgspec.ValidationError as error:
        raise InvalidInput(f"a job's options are version, method and metadata: {error}") from None
    return Job(
        id=job,
        model=model,
        instances=instances,
        version=options.version,
        method=options.method,
        metadata=options.metadata,
        priority=priority,
        expires=_moment(expires),
        eta=_moment(eta),
    )


def _moment(text: Any) -> datetime | None:
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput("a job's eta and expires are ISO 8601 moments") from None
    # Celery leaves the zone out when it means UTC.
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
