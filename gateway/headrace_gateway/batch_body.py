"""The body of `:batch`: its format, and its pieces as they arrive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from starlette.requests import ClientDisconnect, Request

from headrace.batch.reader import Format
from headrace_gateway.problems import Problem
from headrace_gateway.unpacking import Unpacker

#: The type of the answer for each format.
MEDIA_TYPES: dict[Format, str] = {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson"}
#: The types of a body. The last ones are other names of NDJSON.
_FORMATS: dict[str, Format] = {
    "text/csv": "csv",
    "application/csv": "csv",
    "application/x-ndjson": "jsonl",
    "application/ndjson": "jsonl",
    "application/jsonl": "jsonl",
    "application/x-jsonlines": "jsonl",
    "application/jsonlines": "jsonl",
}
_ACCEPT = {"Accept": "text/csv, application/x-ndjson"}


def choose_format(content_type: str | None) -> Format | None:
    """Return the format of a body by its Content-Type; None if it has none. Raises a Problem: 415."""
    if content_type is None:
        return None
    kind, *parameters = (item.strip().lower() for item in content_type.split(";"))
    if kind not in _FORMATS:
        hint = "a file is sent as it is, with `curl -T`" if kind in _FORMS else "or leave the header out"
        raise Problem(
            415,
            "unsupported-type",
            f"`:batch` takes Content-Type: text/csv or application/x-ndjson, got another type; {hint}",
            headers=_ACCEPT,
        )
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name == "charset" and value.strip('"') not in {"utf-8", "utf8", "us-ascii"}:
            raise Problem(
                415, "unsupported-type", "a file is UTF-8; convert it with `iconv -t UTF-8`", headers=_ACCEPT
            )
        if name == "header" and value == "absent":
            raise Problem(415, "unsupported-type", "a CSV begins with a line of column names", headers=_ACCEPT)
    return _FORMATS[kind]


#: What HTML forms send, and `curl` with `-d` or `-F`.
_FORMS = frozenset({"application/x-www-form-urlencoded", "multipart/form-data"})


def guess_format(start: bytes) -> Format:
    """Return the format of a body without a Content-Type by its first bytes: a line of JSON, or else a CSV."""
    return "jsonl" if start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in {b"{", b"["} else "csv"


def check_length(request: Request, limit: int) -> None:
    """Raise a Problem, 413, for a body that says that it is larger than `limit` bytes."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        raise _too_large(limit)


async def read_pieces(
    request: Request, *, limit: int, seconds: float, unpacker: Unpacker | None
) -> AsyncIterator[bytes]:
    """Yield the pieces of a body, unpacked, as they arrive.

    `limit` is the largest size in bytes, as it comes and unpacked; `seconds` the longest time between two pieces.
    Raises a Problem: 413, 408, or 400 for a broken packing; ClientDisconnect if the caller hangs up.
    """
    arrived = size = 0
    has_more = True
    while has_more:
        try:
            async with asyncio.timeout(seconds):
                message = await request.receive()
        except TimeoutError:
            detail = f"nothing arrived of the body for {seconds:g} s; send it again without a pause"
            raise Problem(408, "body-timeout", detail, headers={"Connection": "close"}) from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body: bytes = message.get("body", b"")
        has_more = message.get("more_body", False)
        arrived += len(body)
        unpacked: Iterable[bytes] = [body] if unpacker is None else unpacker.unpack(body)
        for piece in unpacked:
            size += len(piece)
            if max(size, arrived) > limit:
                raise _too_large(limit)
            if piece:
                yield piece
            if unpacker is not None:
                await asyncio.sleep(0)  # other requests have their turn while a large piece is unpacked
    if unpacker is not None:
        unpacker.finish()


def _too_large(limit: int) -> Problem:
    return Problem(
        413,
        "too-large",
        f"the file is larger than {limit:,} bytes, the limit of HEADRACE_GATEWAY_BATCH_BYTES; send it in several, "
        "or put it in a location of the workers and use /v1/bulk",
    )
