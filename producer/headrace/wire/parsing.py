"""A message opened: which job it carries, whichever Celery client wrote it.

    bytes ─> unseal ─> Sealed ─> job
                 │         └─ InvalidInput, NotTrusted: a failure of that job
                 └─ MalformedMessage: there is nobody to tell

In two steps, as a message may be that of a job whose arguments are none: its failure is told under its id.
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
    """The bytes are no message of a job: there is no id an outcome could be stored under."""


class ParsedMessage(msgspec.Struct, frozen=True):
    """A message opened, its arguments not looked at yet."""

    id: str
    args: Sequence[Any]
    kwargs: dict[str, Any]
    eta: Any
    expires: Any
    priority: int
    #: The inbox of the client that submitted it, where it has one.
    reply_to: str | None
    #: The trace it belongs to, where it belongs to one.
    trace: dict[str, str] | None = None
    #: Why it is not trusted; its arguments were not even read then.
    refusal: str | None = None

    def to_job(self) -> Job:
        """The job in it. Raises InvalidInput if its arguments are no job's, NotTrusted if it is refused."""
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
    # What else stands there is not even read: a quarter of what opening a message costs.
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
        given = (self.traceparent, self.tracestate, self.sentry_trace, self.baggage)
        found = {
            name: text for name, text in zip(TRACE_HEADERS, given, strict=True) if isinstance(text, str) and text
        }
        return found or None


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


def parse(message: bytes, trust: Trust | None = None) -> ParsedMessage:
    """Open a message as it lies in Redis, whichever Celery client wrote it. Raises MalformedMessage.

    `trust` says whose jobs are taken; without it all are.
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
        raise MalformedMessage(f"no Celery message of JSON: {error}") from None
    headers = raw.headers
    job = headers.id
    if headers.task != TASK or not isinstance(job, str) or not job:
        raise MalformedMessage(f"no message of the task {TASK} with an id")
    inbox = raw.properties.reply_to
    # Celery's own clients write something else there.
    reply_to = inbox if inbox and _is_inbox(inbox) else None
    # Asked here, as few have one.
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
        expires=_moment(expires),
        eta=_moment(eta),
        trace=trace,
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
