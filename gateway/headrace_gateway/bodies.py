"""Bodies of requests: read them within limits of size and time, and decode them.

No error repeats a value of a body.

read_body     Content-Length ─> type ─> pieces, counted and unpacked as they come ─> bytes
decode_body   bytes ─> struct; an error names the member, and for an unknown one the nearest name
"""

from __future__ import annotations

import asyncio
import re
from typing import TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request

from headrace.text import did_you_mean
from headrace.wire.stored import DECODE_ERRORS
from headrace_gateway.problems import Problem
from headrace_gateway.unpacking import choose_unpacker

JSON_TYPES = frozenset({"application/json"})

T = TypeVar("T")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*?)`(?: - at `\$\.?(?P<path>.*)`)?", re.DOTALL)
_MISMATCH = re.compile(r"Expected `(?P<expected>[^`]*)`, got `(?P<actual>[^`]*)`(?: - at `\$\.?(?P<path>.*)`)?")
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]*)`(?: - at `\$\.?(?P<path>.*)`)?")
_BYTE = re.compile(r"\(byte (\d+)\)")


async def read_body(request: Request, *, limit: int, seconds: float) -> bytes:
    """Return the body of a request, unpacked if it came as gzip or deflate.

    `limit` is the largest size in bytes, as it comes and unpacked; `seconds` the time in which all of it must
    arrive. Raises a Problem: 413, 408, 415 for a packing that is not known, 400 for a broken one.
    """
    unpacker = choose_unpacker(request)
    length = request.headers.get("content-length")
    if length is not None and length.isdecimal() and int(length) > limit:
        raise _too_large(limit)
    pieces: list[bytes] = []
    arrived = size = 0
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                body: bytes = message.get("body", b"")
                arrived += len(body)
                if arrived > limit:
                    raise _too_large(limit)
                for piece in (body,) if unpacker is None else unpacker.unpack(body):
                    size += len(piece)
                    if size > limit:
                        raise _too_large(limit)
                    if piece:
                        pieces.append(piece)
                if not message.get("more_body", False):
                    break
    except TimeoutError:
        raise Problem(
            408,
            "body-timeout",
            f"the body did not arrive within {seconds:g} s; send it at once, and repeat the request",
            headers={"Connection": "close"},
        ) from None
    if unpacker is not None:
        unpacker.finish()
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def check_content_type(request: Request, types: frozenset[str] = JSON_TYPES) -> None:
    """Raise a Problem, 415, unless the body has one of these types, or is JSON of a type `+json` where JSON is."""
    value = request.headers.get("content-type")
    if value in types:
        return
    kind = (value or "").partition(";")[0].strip().lower()
    if kind in types or (kind.endswith("+json") and "application/json" in types):
        return
    expected = " or ".join(sorted(types))
    raise Problem(
        415,
        "unsupported-type",
        f"the body needs the header Content-Type: {expected}"
        + (", got another type" if value else ", and has none")
        + (f"; with curl: -H 'Content-Type: {expected}'" if len(types) == 1 else ""),
        headers={"Accept": ", ".join(sorted(types))},
    )


def decode_body(body: bytes, decoder: msgspec.json.Decoder[T], fields: dict[str, tuple[str, ...]]) -> T:
    """Decode a JSON body. Raises a Problem, 400, that names the member that is wrong, and its nearest name.

    `fields` are the names of an object's members by its path: "" is the body, "parameters" its member.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _refuse_member(str(error), fields) from None
    except msgspec.DecodeError as error:
        raise _refuse_json(body, str(error)) from None
    except RecursionError:
        raise Problem(400, "malformed-body", "the body is JSON that is nested too deeply") from None
    except DECODE_ERRORS:
        raise Problem(400, "malformed-body", "the body is no JSON: a text in it is not UTF-8") from None


def _too_large(limit: int) -> Problem:
    return Problem(
        413,
        "too-large",
        f"the body is larger than {limit:,} bytes, the limit of HEADRACE_MAX_JOB_BYTES; send fewer instances in "
        "each request, or a file to `:batch`",
    )


def _refuse_json(body: bytes, text: str) -> Problem:
    if not body.strip():
        return Problem(400, "malformed-body", 'the body is empty; send JSON such as {"instances": [...]}')
    hint = ""
    if (position := _BYTE.search(text)) is not None:
        rest = body[int(position[1]) :][:3]
        if rest in {b"NaN", b"Inf", b"-In"}:
            hint = "; JSON has no NaN and no Infinity: send null for a value that is missing"
        elif rest[:1] == b"'":
            hint = '; texts and names stand in double quotes: "'
    return Problem(400, "malformed-body", f"the body is no JSON: {_lower(text)}{hint}")


def _refuse_member(text: str, fields: dict[str, tuple[str, ...]]) -> Problem:
    """Return the problem of msgspec's message `text`."""
    if (unknown := _UNKNOWN.fullmatch(text)) is not None:
        path, name = unknown["path"] or "", unknown["name"][:64]
        return _named(path, name, f"is unknown{_suggest(path, name, fields)}")
    if (missing := _MISSING.fullmatch(text)) is not None:
        return _named(missing["path"] or "", missing["name"], "is missing")
    if (mismatch := _MISMATCH.fullmatch(text)) is not None:
        path, _, name = (mismatch["path"] or "").rpartition(".")
        return _named(path, name, f"must be {_type(mismatch['expected'])}, got {_type(mismatch['actual'])}")
    return Problem(400, "malformed-body", f"the body is not as it should be: {_lower(text)}")


def _suggest(path: str, name: str, fields: dict[str, tuple[str, ...]]) -> str:
    here = fields.get(path, ())
    for other, names in fields.items():
        if other != path and name in names:
            return f" there; it stands {f'in `{other}`' if other else f'beside `{path}`'}"
    return did_you_mean(name, here, cutoff=0.5) or (f"; known: {', '.join(here)}" if here else "")


def _named(path: str, name: str, detail: str) -> Problem:
    members = [member for member in (path, name) if member]
    pointer = "".join(f"/{token}" for token in re.split(r"[.\[\]]+", ".".join(members)) if token)
    shown = f"`{'.'.join(members)}`" if members else "the body"
    return Problem(400, "malformed-body", f"{shown} {detail}", errors=[{"pointer": pointer, "detail": detail}])


_TYPES = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}


def _type(names: str) -> str:
    return " or ".join(_TYPES.get(name.strip(), name.strip()) for name in names.split("|"))


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
