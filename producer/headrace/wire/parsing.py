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
from functools import lru_cache
from typing import Annotated, Any

import msgspec

from headrace.errors import InvalidInput, NotTrusted
from headrace.wire import foreign_message
from headrace.wire.bulk import BULK_TASK
from headrace.wire.canvas import MAX_SIGNATURE_BYTES, Canvas, Embedded, MessageWithCanvas, decode_canvas
from headrace.wire.foreign_message import MAX_ID, ForeignMessage, MalformedMessage
from headrace.wire.limits import COUNTED_FROM, JobLimits
from headrace.wire.message import TRACE_HEADERS, Job
from headrace.wire.queues import TASK
from headrace.wire.signing import SIGNATURE_HEADER, SignedContent, Trust
from headrace.wire.task_arguments import build_bulk_job, build_job

__all__ = ["MalformedMessage", "ParsedMessage", "parse", "parse_canvas"]

#: No set: the name of a foreign task may be of any type.
_TASKS = (TASK, BULK_TASK)
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
    #: What the job is connected with in a Celery canvas; None for most jobs.
    canvas: Canvas | None = None
    #: True for a message to the task of bulk jobs.
    is_bulk: bool = False

    def to_job(self) -> Job:
        """Return the job. Raises InvalidInput for invalid arguments, NotTrusted for a job that is not trusted."""
        if self.refusal is not None:
            raise self.refusal
        if self.is_bulk and self.canvas is not None:
            raise InvalidInput("a bulk job has no callbacks, and is no link of a canvas: send it alone")
        return (build_bulk_job if self.is_bulk else build_job)(
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
    parent_id: Any = None
    group: Any = None

    @property
    def trace(self) -> dict[str, str] | None:
        return _select_trace((self.traceparent, self.tracestate, self.sentry_trace, self.baggage))


class _Message(msgspec.Struct):
    body: str
    headers: _Headers
    properties: _Properties


_CLIENT_ID = re.compile("[0-9a-f]{32}")
_MESSAGE = msgspec.json.Decoder(_Message)
_CANVAS_HEADERS = msgspec.json.Decoder(MessageWithCanvas)
_BODY = msgspec.json.Decoder(tuple[list[Any], dict[str, Any], Embedded | None])
_BODY_UNREAD = msgspec.json.Decoder(tuple[msgspec.Raw, msgspec.Raw, msgspec.Raw])


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
        if headers.task not in _TASKS:
            return _parse_foreign(message, trust, limits, queue, now)
        properties = raw.properties
        reply_to = properties.reply_to
        if trust is not None and (
            problem := trust.find_problem(_signed_content(raw, queue), headers.signature, now)
        ):
            return _refused(job, NotTrusted(problem), reply_to)
        body = base64.b64decode(raw.body) if properties.body_encoding == "base64" else raw.body
        if is_large:
            limits.check_body(body if isinstance(body, bytes) else body.encode())
        args, kwargs, embedded = _BODY.decode(body)
        canvas = None
        if embedded is not None and (
            embedded.callbacks
            or embedded.errbacks
            or embedded.chain
            or embedded.chord
            or headers.parent_id
            or headers.group
        ):
            signed = trust is not None and headers.signature is not None
            canvas = decode_canvas(_CANVAS_HEADERS.decode(message).headers, embedded, signed=signed)
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
    if headers.ignore_result or canvas is not None or headers.task == BULK_TASK:
        return ParsedMessage(
            job,
            args,
            kwargs,
            headers.eta,
            headers.expires,
            priority,
            reply_to,
            trace,
            ignore_result=bool(headers.ignore_result),
            canvas=canvas,
            is_bulk=headers.task == BULK_TASK,
        )
    return ParsedMessage(job, args, kwargs, headers.eta, headers.expires, priority, reply_to, trace)


def parse_canvas(
    message: bytes, trust: Trust | None, limits: JobLimits, *, queue: str, now: float
) -> Canvas | None:
    """Return the canvas of a message that is not opened any more: its instances are passed over, not decoded.

    The parameters are those of `parse`. Return None for a job without a canvas, and where `parse` would refuse it.
    """
    try:
        limits.check_message(message)
        raw = _MESSAGE.decode(message)
        body = base64.b64decode(raw.body) if raw.properties.body_encoding == "base64" else raw.body.encode()
        *_, embedded = _BODY_UNREAD.decode(body)
        if len(bytes(embedded)) > 2 * MAX_SIGNATURE_BYTES:
            return None
        if trust is not None and trust.find_problem(_signed_content(raw, queue), raw.headers.signature, now):
            return None
        signed = trust is not None and raw.headers.signature is not None
        headers = _CANVAS_HEADERS.decode(message).headers
        return decode_canvas(headers, msgspec.json.decode(embedded, type=Embedded), signed=signed)
    except (InvalidInput, msgspec.DecodeError, ValueError, RecursionError):
        return None


def _signed_content(raw: _Message, queue: str) -> SignedContent:
    headers = raw.headers
    return SignedContent(
        job=str(headers.id),
        queue=queue,
        reply_to=raw.properties.reply_to or "",
        eta=headers.eta,
        expires=headers.expires,
        body=raw.body.encode(),
    )


def _refused(
    job: str | None, refusal: InvalidInput, reply_to: Any = None, canvas: Canvas | None = None
) -> ParsedMessage:
    """Return the message of a job that fails with this error, without arguments."""
    if not job:
        raise MalformedMessage(f"{refusal}. No id of a job can be read from it") from None
    if not isinstance(reply_to, str) or not _is_client_id(reply_to):
        reply_to = None
    return ParsedMessage(job, [], {}, None, None, 0, reply_to, None, refusal, canvas=canvas)


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
    job, canvas = foreign.id, None
    try:
        if trust is not None:
            _check_trust(foreign, trust, queue, now)
        task = foreign.decode_task(limits)
        job = task.id
        if not job:
            raise MalformedMessage(f"not a message of the task {TASK} or {BULK_TASK} with an id")
        canvas = task.decode_canvas(signed=trust is not None and headers.get(SIGNATURE_HEADER) is not None)
        foreign_message.check_task(task)
    except InvalidInput as error:
        return _refused(job or foreign_message.scan_id(message), error, reply_to, canvas)
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
        canvas=canvas,
        is_bulk=task.task == BULK_TASK,
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
