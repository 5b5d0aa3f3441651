"""Parsing of a message, whichever Celery client wrote it, in two steps.

bytes ─> parse ─> ParsedMessage ─> to_job ─> Job
           │                          └─ InvalidInput, NotTrusted: the job fails, and its id is known
           └─ MalformedMessage: there is no id to store an outcome under
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from headrace.errors import InvalidInput, NotTrusted
from headrace.wire.keys import TASK, split_version
from headrace.wire.message import TRACE_HEADERS, Job, TaskOptions
from headrace.wire.signing import SIGNATURE_HEADER, Trust

_NO_OPTIONS = TaskOptions()


class MalformedMessage(ValueError):
    """The bytes are not the message of a job, so there is no id to store an outcome under."""


class ParsedMessage(msgspec.Struct, frozen=True):
    """A message whose arguments are not checked yet."""

    id: str
    args: Sequence[Any]
    kwargs: dict[str, Any]
    eta: Any
    expires: Any
    priority: int
    #: The client whose reply channel gets the outcome; None for a plain Celery client.
    reply_to: str | None
    #: The trace of the job, as headers of the message.
    trace: dict[str, str] | None = None
    #: The reason why the job is not trusted. Then the arguments were not read.
    refusal: str | None = None

    def to_job(self) -> Job:
        """Return the job. Raises InvalidInput for invalid arguments, NotTrusted for a job that is not trusted."""
        if self.refusal is not None:
            raise NotTrusted(self.refusal)
        return build_job(
            self.id,
            self.args,
            self.kwargs,
            eta=self.eta,
            expires=self.expires,
            priority=self.priority,
            trace=self.trace,
        )


class _Properties(msgspec.Struct):
    body_encoding: str | None = None
    priority: int | None = None
    reply_to: str | None = None


class _Headers(msgspec.Struct):
    # Other headers are not decoded, which saves a quarter of the time to parse a message.
    id: Any = None
    task: Any = None
    eta: Any = None
    expires: Any = None
    traceparent: Any = None
    tracestate: Any = None
    sentry_trace: Any = msgspec.field(default=None, name="sentry-trace")
    baggage: Any = None
    signature: Any = msgspec.field(default=None, name=SIGNATURE_HEADER)

    @property
    def trace(self) -> dict[str, str] | None:
        values = (self.traceparent, self.tracestate, self.sentry_trace, self.baggage)
        named = zip(TRACE_HEADERS, values, strict=True)
        return {name: text for name, text in named if isinstance(text, str) and text} or None


class _Message(msgspec.Struct):
    body: str
    headers: _Headers
    properties: _Properties


_CLIENT_ID = re.compile("[0-9a-f]{32}")
_MESSAGE = msgspec.json.Decoder(_Message)
_BODY = msgspec.json.Decoder(tuple[list[Any], dict[str, Any], Any])


@lru_cache(maxsize=1024)
def _is_client_id(reply_to: str) -> bool:
    return _CLIENT_ID.fullmatch(reply_to) is not None


def parse(message: bytes, trust: Trust | None = None) -> ParsedMessage:
    """Parse a message as it is in Redis. Raises MalformedMessage.

    `trust` decides which jobs are trusted; without it, all are.
    """
    refusal = None
    try:
        raw = _MESSAGE.decode(message)
        if trust is not None:
            refusal = _refusal(raw, trust)
        if refusal is None:
            body = base64.b64decode(raw.body) if raw.properties.body_encoding == "base64" else raw.body
            args, kwargs, _ = _BODY.decode(body)
        else:
            args, kwargs = [], {}
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise MalformedMessage(f"not a Celery message in JSON: {error}") from None
    headers = raw.headers
    job = headers.id
    if headers.task != TASK or not isinstance(job, str) or not job:
        raise MalformedMessage(f"not a message of the task {TASK} with an id")
    reply_to = raw.properties.reply_to
    # Celery's own clients write another id there, with dashes.
    if not reply_to or not _is_client_id(reply_to):
        reply_to = None
    # Few messages have a trace, so the property is read only for those.
    trace = headers.trace if headers.traceparent is not None or headers.sentry_trace is not None else None
    priority = raw.properties.priority or 0
    return ParsedMessage(job, args, kwargs, headers.eta, headers.expires, priority, reply_to, trace, refusal)


def _refusal(raw: _Message, trust: Trust) -> str | None:
    headers = raw.headers
    return trust.check(str(headers.id), headers.expires, raw.body.encode(), headers.signature)


def build_job(
    job: str,
    args: Sequence[Any],
    kwargs: dict[str, Any],
    *,
    eta: Any = None,
    expires: Any = None,
    priority: int = 0,
    trace: dict[str, str] | None = None,
) -> Job:
    """Return the job that the arguments of a Celery task describe. Raises InvalidInput for invalid arguments.

    `eta` and `expires` are the headers of the message: ISO 8601 texts, or None.
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
        options = msgspec.convert(kwargs, TaskOptions) if kwargs else _NO_OPTIONS
    except msgspec.ValidationError as error:
        raise InvalidInput(f"a job's options are version, method and metadata: {error}") from None
    name, version = split_version(model, options.version)
    return Job(
        id=job,
        model=name,
        instances=instances,
        version=version,
        method=options.method,
        metadata=options.metadata,
        priority=priority,
        expires=_parse_moment(expires),
        eta=_parse_moment(eta),
        trace=trace,
    )


def _parse_moment(text: Any) -> datetime | None:
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput("a job's eta and expires are ISO 8601 moments") from None
    # Celery writes no time zone for UTC.
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
