"""Read messages in forms that other Celery clients write, where the strict decoder of `parsing` gives up.

Taken: Celery's protocol 1, zlib and gzip within the limit of a job, NaN (a missing value), arguments that are
null, priorities as text, other encodings of text, a body that is not base64.
Refused under the id of the job, in words that say what to change: other serializers and compressions, time
limits, other tasks, text that is no Unicode, JSON that cannot be read.

Where the message cannot be read as JSON at all, its id is searched for in its bytes (`scan_id`).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import zlib
from typing import Any

import msgspec

from headrace.errors import InvalidInput
from headrace.wire.bulk import BULK_TASK
from headrace.wire.canvas import Canvas, CanvasHeaders, Embedded, decode_canvas
from headrace.wire.limits import JobLimits
from headrace.wire.queues import TASK

#: Bytes at the start and at the end of a message in which its id is searched for.
_SCAN_BYTES = 64 * 1024
#: Most characters of an id.
MAX_ID = 255
_IDS = tuple(
    re.compile(rb'"%b"\s*:\s*"([^"\\\x00-\x1f]{1,%d})"' % (name, MAX_ID)) for name in (b"correlation_id", b"id")
)
_REPLY_TO = re.compile(rb'"reply_to"\s*:\s*"([0-9a-f]{32})"')

#: Content types by kombu's names of serializers, for errors.
_SERIALIZERS = {
    "application/x-python-serialize": "pickle",
    "application/x-msgpack": "msgpack",
    "application/x-yaml": "yaml",
}
#: kombu writes zlib data under the name of gzip; other clients write gzip.
_ZLIB = {"application/x-gzip", "application/gzip", "application/zlib", "gzip", "zlib"}
#: zlib finds out whether it is zlib data or gzip data.
_ZLIB_OR_GZIP = 32 + zlib.MAX_WBITS
#: Encodings of text other than UTF-8 that a body may have. JSON of Celery's clients is ASCII.
_ENCODINGS = {"latin-1", "iso-8859-1", "utf-16", "utf-16-le", "utf-16-be", "utf-32"}


class MalformedMessage(ValueError):
    """The bytes are not the message of a job, and no id can be read to store an outcome under."""


class ForeignTask(msgspec.Struct, frozen=True):
    """The call of a Celery task that a message holds, of either protocol."""

    id: str | None
    task: Any
    args: list[Any]
    kwargs: dict[str, Any]
    eta: Any
    expires: Any
    timelimit: Any
    #: What follows the task, and the headers that name other tasks: not checked.
    embedded: Any = None
    canvas_headers: dict[str, Any] = {}

    def decode_canvas(self, *, signed: bool) -> Canvas | None:
        """Return the canvas of the task; None if it has none. Raises InvalidInput for values of other types."""
        if not isinstance(self.embedded, dict):
            return None
        try:
            headers = msgspec.convert(self.canvas_headers, CanvasHeaders)
            embedded = msgspec.convert(self.embedded, Embedded)
        except msgspec.ValidationError as error:
            raise InvalidInput(f"the headers of the message that name other tasks are invalid: {error}") from None
        if not any((headers.parent_id, headers.group, *msgspec.structs.astuple(embedded))):
            return None
        return decode_canvas(headers, embedded, signed=signed)


class ForeignMessage(msgspec.Struct, frozen=True):
    """kombu's envelope of a message: its body is not decoded yet."""

    #: A text as it is in the message; bytes if the body is JSON itself, and no text.
    body: str | bytes
    headers: dict[str, Any]
    properties: dict[str, Any]
    content_type: str
    content_encoding: str

    @classmethod
    def read(cls, message: bytes) -> ForeignMessage:
        """Read the envelope. Raises InvalidInput for bytes that are no envelope."""
        fields = _decode_json(message, "the message")
        if not isinstance(fields, dict) or "body" not in fields:
            raise InvalidInput("the message is not a Celery message: it is no JSON object with a body")
        body = fields["body"]
        return cls(
            body if isinstance(body, str) else json.dumps(body).encode(),
            _object(fields.get("headers")),
            _object(fields.get("properties")),
            _text(fields.get("content-type")).partition(";")[0].strip().lower(),
            _text(fields.get("content-encoding")).strip().lower(),
        )

    @property
    def id(self) -> str | None:
        """The id in the headers or properties; None if a body of protocol 1 may hold it."""
        return _valid_id(self.headers.get("id")) or _valid_id(self.properties.get("correlation_id"))

    @property
    def priority(self) -> int:
        """The priority from 0 to 9, as kombu reads it: a number, a text, or 0."""
        try:
            return max(0, min(9, int(self.properties.get("priority") or 0)))
        except (TypeError, ValueError, OverflowError):
            return 0

    def decode_task(self, limits: JobLimits) -> ForeignTask:
        """Decode the body. Raises InvalidInput for a body that cannot be read."""
        headers, content = self.headers, _decode_json(self.decode_body(limits), "the job's arguments")
        if isinstance(content, dict) and "task" not in headers:
            return self._decode_protocol_1(content)
        if not isinstance(content, list) or not 2 <= len(content) <= 3:
            raise InvalidInput("the body of the message is not [args, kwargs, options], as Celery writes it")
        return ForeignTask(
            self.id,
            headers.get("task"),
            _positional(content[0]),
            _named(content[1]),
            headers.get("eta"),
            headers.get("expires"),
            headers.get("timelimit"),
            content[2] if len(content) == 3 else None,
            headers,
        )

    def _decode_protocol_1(self, content: dict[str, Any]) -> ForeignTask:
        moments = content.get("eta"), content.get("expires")
        if content.get("utc", True) is False and any(map(_lacks_zone, moments)):
            raise InvalidInput(
                "the job's eta or expires is local time without a time zone; set enable_utc=True in the client"
            )
        return ForeignTask(
            _valid_id(content.get("id")) or self.id,
            content.get("task"),
            _positional(content.get("args")),
            _named(content.get("kwargs")),
            *moments,
            content.get("timelimit"),
            content,
            {**content, "group": content.get("taskset")},
        )

    def decode_body(self, limits: JobLimits) -> bytes:
        """Return the body as JSON in UTF-8: decoded from base64, and decompressed. Raises InvalidInput."""
        if self.content_type in _SERIALIZERS:
            raise InvalidInput(
                f"the job's arguments are {self.content_type} ({_SERIALIZERS[self.content_type]}); workers read "
                "JSON only: send the job with serializer='json'"
            )
        body = self._decode_text()
        compression = self.headers.get("compression")
        if compression is not None:
            body = _decompress(body, compression, limits)
        limits.check_body(body)
        if self.content_encoding in _ENCODINGS:
            try:
                body = body.decode(self.content_encoding).encode()
            except UnicodeError:
                raise InvalidInput(
                    f"the job's arguments are not {self.content_encoding}, as content-encoding says; send UTF-8"
                ) from None
        return body

    def _decode_text(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        is_base64 = self.properties.get("body_encoding") == "base64"
        try:
            # A client may leave body_encoding out: no JSON of arguments is base64 as well.
            if is_base64 or not self.body.lstrip().startswith(("[", "{")):
                return base64.b64decode(self.body, validate=not is_base64)
            return self.body.encode()
        except (binascii.Error, ValueError):
            raise InvalidInput("the body of the message is neither base64 nor JSON") from None


def check_task(task: ForeignTask) -> None:
    """Refuse what a job cannot have. Raises InvalidInput."""
    if task.task not in (TASK, BULK_TASK):
        name = repr(task.task[:64]) if isinstance(task.task, str) else "missing"
        raise InvalidInput(f"the name of the task is {name}; the only task in the queue of a model is {TASK!r}")
    if task.timelimit is not None and task.timelimit not in ([None, None], []):
        raise InvalidInput(
            "time_limit and soft_time_limit are limits of a model, not of a job: leave them out, and package the "
            "model with limits"
        )


def scan_id(message: bytes) -> str | None:
    """Search the id of a job in the bytes of a message, whatever they are; None if there is none.

    Only the start and the end are searched, where clients write headers and properties.
    """
    for pattern in _IDS:
        for end in _ends(message):
            if match := pattern.search(end):
                try:
                    return match[1].decode()
                except UnicodeDecodeError:
                    return None
    return None


def scan_reply_to(message: bytes) -> str | None:
    """Search the Headrace client that waits for a job as `scan_id` searches its id; None for any other client."""
    matches = (_REPLY_TO.search(end) for end in _ends(message))
    return next((match[1].decode() for match in matches if match), None)


def _ends(message: bytes) -> list[bytes]:
    return [message[-_SCAN_BYTES:], message[:_SCAN_BYTES]] if len(message) > _SCAN_BYTES else [message]


def _decode_json(data: bytes, subject: str) -> Any:
    """Decode JSON as Python's own module writes it. Raises InvalidInput, which names the `subject`."""
    try:
        return msgspec.json.decode(data)
    except RecursionError:
        raise InvalidInput(f"{subject} is nested too deeply to be read") from None
    except (msgspec.DecodeError, ValueError):
        pass
    try:
        decoded = json.loads(data)
    except RecursionError:
        raise InvalidInput(f"{subject} is nested too deeply to be read") from None
    except ValueError:
        raise InvalidInput(f"{subject} cannot be read as JSON in UTF-8") from None
    try:
        json.dumps(decoded, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise InvalidInput(
            f"{subject} holds half of a surrogate pair, which is no character; send text that UTF-8 can encode"
        ) from None
    return decoded


def _decompress(body: bytes, compression: Any, limits: JobLimits) -> bytes:
    if _text(compression) not in _ZLIB:
        name = repr(compression[:64]) if isinstance(compression, str) else "unreadable"
        raise InvalidInput(
            f"the compression of the message is {name}; workers read zlib and gzip: send the job with "
            "compression='zlib', or without"
        )
    decompressor = zlib.decompressobj(_ZLIB_OR_GZIP)
    try:
        decompressed = decompressor.decompress(body, limits.body_bytes + 1)
    except zlib.error:
        raise InvalidInput(f"the body of the message is not {compression}, as its header says") from None
    if len(decompressed) <= limits.body_bytes and not decompressor.eof:
        raise InvalidInput("the compressed body of the message is cut off")
    return decompressed


def _positional(args: Any) -> list[Any]:
    if args is None:
        return []
    if not isinstance(args, list):
        raise InvalidInput("the positional arguments of the message are not a list")
    return args


def _named(kwargs: Any) -> dict[str, Any]:
    if kwargs is None:
        return {}
    if not isinstance(kwargs, dict):
        raise InvalidInput("the named arguments of the message are not an object")
    return kwargs


def _valid_id(value: Any) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= MAX_ID else None


def _lacks_zone(moment: Any) -> bool:
    return isinstance(moment, str) and not re.search(r"(Z|[+-]\d\d:?\d\d)$", moment)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
