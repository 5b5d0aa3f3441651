"""Parsing of a message, whichever Celery client wrote it, in two steps.

bytes ─> parse ─> ParsedMessage ─> to_job ─> Job
           │                          └─ InvalidInput, NotTrusted: the job fails, and its id is known
           └─ MalformedMessage: no id can be read, so there is none to store an outcome under

Most messages have the form that Headrace's client writes, and are decoded strictly, in C. Only where that fails,
the message is read again, slowly, for what other clients may write (`foreign_message`).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any

import msgspec

from headrace.errors import InvalidInput, NotTrusted
from headrace.wire import foreign_message
from headrace.wire.foreign_message import MAX_ID, ForeignMessage, MalformedMessage
from headrace.wire.keys import TASK, split_version
from headrace.wire.limits import COUNTED_FROM, JobLimits
from headrace.wire.message import TRACE_HEADERS, Job, TaskOptions
from headrace.wire.signing import SIGNATURE_HEADER, SignedContent, Trust

__all__ = ["MalformedMessage", "ParsedMessage", "build_job", "parse"]

_NO_OPTIONS = TaskOptions()
_DEFAULT_LIMITS = JobLimits()


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
    #: The reason why the job fails, whatever its arguments are. Then they may not have been read.
    refusal: InvalidInput | None = None
    #: True if the client asks that the predictions are not stored.
    ignore_result: bool = False
    #: True if only the slow way could read the message.
    is_foreign: bool = False

    def to_job(self) -> Job:
        """Return the job. Raises InvalidInput for invalid arguments, NotTrusted for a job that is not trusted."""
        if self.refusal is not None:
            raise self.refusal
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
    priority: Annotated[int, msgspec.Meta(ge=0, le=9)] | None = None
    reply_to: str | None = None


class _Headers(msgspec.Struct):
    # Other headers are not decoded, which saves a quarter of the time to parse a message. A header of another type
    # than here sends the message to the slow way: a time limit, a compression.
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID)]
    task: Any = None
    eta: str | None = None
    expires: str | None = None
    timelimit: tuple[None, None] | None = None
    ignore_result: bool | None = None
    compression: None = None
    traceparent: Any = None
    tracestate: Any = None
    sentry_trace: Any = msgspec.field(default=None, name="sentry-trace")
    baggage: Any = None
    signature: Any = msgspec.field(default=None, name=SIGNATURE_HEADER)

    @property
    def trace(self) -> dict[str, str] | None:
        return _select_trace((self.traceparent, self.tracestate, self.sentry_trace, self.baggage))


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


def _select_trace(values: Sequence[Any]) -> dict[str, str] | None:
    named = zip(TRACE_HEADERS, values, strict=True)
    return {name: text for name, text in named if isinstance(text, str) and text} or None


def parse(
    message: bytes,
    trust: Trust | None = None,
    limits: JobLimits = _DEFAULT_LIMITS,
    *,
    queue: str = "",
    now: float = 0.0,
) -> ParsedMessage:
    """Parse a message as it is in Redis. Raises MalformedMessage if no id can be read.

    `trust` decides which jobs are trusted, given the queue that the message was in, and the time in unix seconds;
    without `trust`, all are. `limits` are checked before anything is decoded.
    """
    is_large = len(message) > COUNTED_FROM
    if is_large:
        try:
            limits.check_message(message)
        except InvalidInput as error:
            return _refused(foreign_message.scan_id(message), error, foreign_message.scan_reply_to(message))
    try:
        raw = _MESSAGE.decode(message)
        headers = raw.headers
        job = headers.id
        if headers.task != TASK:
            return _parse_foreign(message, trust, limits, queue, now)
        properties = raw.properties
        reply_to = properties.reply_to
        if trust is not None:
            content = SignedContent(
                job=job,
                queue=queue,
                reply_to=reply_to or "",
                eta=headers.eta,
                expires=headers.expires,
                body=raw.body.encode(),
            )
            if problem := trust.find_problem(content, headers.signature, now):
                return _refused(job, NotTrusted(problem), reply_to)
        body = base64.b64decode(raw.body) if properties.body_encoding == "base64" else raw.body
        if is_large:
            limits.check_body(body if isinstance(body, bytes) else body.encode())
        args, kwargs, _ = _BODY.decode(body)
    except InvalidInput as error:
        return _refused(job, error, reply_to)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return _parse_foreign(message, trust, limits, queue, now)
    # Celery's own clients write another id there, with dashes.
    if not reply_to or not _is_client_id(reply_to):
        reply_to = None
    # Few messages have a trace, so the property is read only for those.
    trace = headers.trace if headers.traceparent is not None or headers.sentry_trace is not None else None
    priority = properties.priority or 0
    if headers.ignore_result:
        return ParsedMessage(
            job, args, kwargs, headers.eta, headers.expires, priority, reply_to, trace, ignore_result=True
        )
    return ParsedMessage(job, args, kwargs, headers.eta, headers.expires, priority, reply_to, trace)


def _refused(job: str | None, refusal: InvalidInput, reply_to: Any = None) -> ParsedMessage:
    """Return the message of a job that fails with this error, without arguments."""
    if not job:
        raise MalformedMessage(f"{refusal}. No id of a job can be read from it") from None
    if not isinstance(reply_to, str) or not _is_client_id(reply_to):
        reply_to = None
    return ParsedMessage(job, [], {}, None, None, 0, reply_to, None, refusal)


def _parse_foreign(
    message: bytes, trust: Trust | None, limits: JobLimits, queue: str, now: float
) -> ParsedMessage:
    """Parse a message that is not in the form of Headrace's client."""
    try:
        foreign = ForeignMessage.read(message)
    except InvalidInput as error:
        return _refused(foreign_message.scan_id(message), error, foreign_message.scan_reply_to(message))
    headers, reply_to = foreign.headers, foreign.properties.get("reply_to")
    if not isinstance(reply_to, str):
        reply_to = None
    job = foreign.id
    try:
        if trust is not None:
            _check_trust(foreign, trust, queue, now)
        task = foreign.decode_task(limits)
        job = task.id
        if not job:
            raise MalformedMessage(f"not a message of the task {TASK} with an id")
        foreign_message.check_task(task)
    except InvalidInput as error:
        return _refused(job or foreign_message.scan_id(message), error, reply_to)
    return ParsedMessage(
        job,
        task.args,
        task.kwargs,
        task.eta,
        task.expires,
        foreign.priority,
        reply_to if reply_to and _is_client_id(reply_to) else None,
        _select_trace([headers.get(name) for name in TRACE_HEADERS]),
        ignore_result=headers.get("ignore_result") is True,
        is_foreign=True,
    )


def _check_trust(foreign: ForeignMessage, trust: Trust, queue: str, now: float) -> None:
    """Check the signature of a message. Raises NotTrusted."""
    headers, properties = foreign.headers, foreign.properties

    def text(value: Any) -> str | None:
        return value if isinstance(value, str) else None

    content = SignedContent(
        job=foreign.id or "",
        queue=queue,
        reply_to=text(properties.get("reply_to")) or "",
        eta=text(headers.get("eta")),
        expires=text(headers.get("expires")),
        body=foreign.body if isinstance(foreign.body, bytes) else foreign.body.encode("utf-8", "replace"),
    )
    if problem := trust.find_problem(content, headers.get(SIGNATURE_HEADER), now):
        raise NotTrusted(problem)


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
                f"got [{_describe_types(args)}]"
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


def _describe_types(args: Sequence[Any]) -> str:
    names = ", ".join(type(arg).__name__ for arg in args[:3])
    return names if len(args) <= 3 else f"{names}, and {len(args) - 3:,} more"


def _parse_moment(text: Any) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except (ValueError, TypeError):
        raise InvalidInput(
            "a job's eta and expires are ISO 8601 moments, such as 2030-01-31T12:00:00+00:00"
        ) from None
    # Celery writes no time zone for UTC.
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
