"""Tensors of Open Inference v2: their data as JSON and as bytes, to values in row-major order and back.

Values are Python's: float, int, bool, str, and None for a missing value, which is NaN in the bytes of floats.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence
from itertools import chain
from typing import Annotated, Any, NamedTuple

import msgspec

from headrace_gateway.problems import Problem

#: The format characters of `struct` by datatype, for all datatypes whose values have a fixed size.
_FORMATS = {
    "BOOL": "?",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}
_FLOATS = frozenset({"FP16", "FP32", "FP64", "BF16"})
DATATYPES = frozenset({*_FORMATS, "BF16", "BYTES"})
#: Most dimensions of a tensor. numpy has at most 64, models of tables and images have up to 5.
MAX_RANK = 16


class Tensor(NamedTuple):
    """A named tensor."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    #: In row-major order.
    values: list[Any]


def malformed(detail: str) -> Problem:
    """Return the problem of a body that contradicts itself."""
    return Problem(400, "malformed-body", detail)


def item_size(datatype: str) -> int | None:
    """Return the bytes of a value; None for BYTES, whose values have their length before them."""
    if datatype == "BYTES":
        return None
    return 2 if datatype == "BF16" else struct.calcsize("<" + _FORMATS[datatype])


def decode_bytes(name: str, datatype: str, count: int, data: memoryview) -> list[Any]:
    """Return the `count` values of a tensor in the binary form. Raises a Problem (400) if its bytes are not that.

    `name` describes the tensor in errors, as `input 'age'`.
    """
    size = item_size(datatype)
    if size is None:
        return _decode_texts(name, count, data)
    if len(data) != count * size:
        raise malformed(
            f"{name} has {len(data):,} bytes of binary data, and its shape and datatype {datatype} take "
            f"{count * size:,}"
        )
    if datatype == "BF16":
        # The upper half of a float of 4 bytes.
        halves = (half << 16 for half in struct.unpack(f"<{count}H", data))
        return mark_missing(struct.unpack(f"<{count}f", struct.pack(f"<{count}I", *halves)))
    values = struct.unpack(f"<{count}{_FORMATS[datatype]}", data)
    return mark_missing(values) if datatype in _FLOATS else list(values)


def mark_missing(values: Sequence[float]) -> list[float | None]:
    """Return floats with None for NaN."""
    # A sum is NaN if a value is, and if there are infinities of both signs.
    if values and math.isnan(sum(values)):
        return [None if value != value else value for value in values]  # noqa: PLR0124  # only NaN is not itself
    return list(values)


def _decode_texts(name: str, count: int, data: memoryview) -> list[str]:
    texts: list[str] = []
    position, end = 0, len(data)
    while position < end:
        if len(texts) == count or end - position < 4:
            break
        (length,) = struct.unpack_from("<I", data, position)
        position += 4
        if length > end - position:
            raise malformed(f"{name}: value {len(texts)} is longer than the binary data that is left for it")
        texts.append(_read_text(name, len(texts), data[position : position + length]))
        position += length
    if position != end or len(texts) != count:
        raise malformed(
            f"{name}: its binary data is not {count:,} values, each with its length in 4 bytes before it"
        )
    return texts


def _read_text(name: str, index: int, data: memoryview | bytes) -> str:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError:
        raise malformed(f"{name}: value {index} is not a text in UTF-8") from None


# msgspec takes bounds of 64 bits with a sign, so that UINT64 has none above.
_INTEGERS: dict[str, Any] = {
    prefix + str(bits): Annotated[int, msgspec.Meta(ge=low, le=high)]
    for bits in (8, 16, 32, 64)
    for prefix, low, high in (("INT", -(2 ** (bits - 1)), 2 ** (bits - 1) - 1), ("UINT", 0, 2**bits - 1))
    if high < 2**63
} | {"UINT64": Annotated[int, msgspec.Meta(ge=0)]}
_JSON_TYPES: dict[str, Any] = {
    "BOOL": list[bool | None],
    "BYTES": list[str | None],
    **dict.fromkeys(_FLOATS, list[float | None]),
    **{
        datatype: list[integer | None]  # type: ignore[valid-type]  # built at run time
        for datatype, integer in _INTEGERS.items()
    },
}
_EXPECTED = {"BOOL": "true or false", "BYTES": "a string", **dict.fromkeys(_FLOATS, "a number")}


def decode_list(name: str, datatype: str, shape: Sequence[int], data: Any) -> list[Any]:
    """Return the values of a tensor in the JSON form, flat or nested by its shape. null is a missing value.

    Raises a Problem (400) that names the first value that is not of the datatype, and what is expected.
    """
    flat = _flatten(name, shape, data)
    count = math.prod(shape)
    if len(flat) != count:
        raise malformed(f"{name}: its data has {len(flat):,} values, and its shape takes {count:,}")
    try:
        values: list[Any] = msgspec.convert(flat, _JSON_TYPES[datatype])
    except (msgspec.ValidationError, OverflowError):
        raise malformed(_describe_misfit(name, datatype, flat)) from None
    if datatype == "UINT64" and any(value is not None and value >= 2**64 for value in values):
        raise malformed(_describe_misfit(name, datatype, flat))
    return values


def _flatten(name: str, shape: Sequence[int], data: Any) -> list[Any]:
    if not isinstance(data, list):
        raise malformed(f"{name}: `data` must be a list")
    for length in shape[1:]:
        if not data or not isinstance(data[0], list):
            break
        if not all(isinstance(row, list) and len(row) == length for row in data):
            raise malformed(f"{name}: its data is nested, and not as its shape says")
        data = list(chain.from_iterable(data))
    return list(data)


def _describe_misfit(name: str, datatype: str, values: list[Any]) -> str:
    expected = _EXPECTED.get(datatype, "an integer")
    for index, value in enumerate(values):
        try:
            msgspec.convert([value], _JSON_TYPES[datatype])
            fits = datatype != "UINT64" or value is None or value < 2**64
        except (msgspec.ValidationError, OverflowError):
            fits = False
        if not fits:
            return f"{name}: data[{index}] must be {expected} of datatype {datatype}"
    return f"{name}: its data is not of datatype {datatype}"


def decode_content(name: str, content_type: Any, texts: Sequence[str | None]) -> list[Any]:
    """Return the values in texts of one of MLServer's content types, `base64` and `pd_json`; others say nothing.

    `pd_json` is each value of a column of mixed types as JSON. Raises a Problem (400) for texts that are not that.
    """
    if content_type not in {"base64", "pd_json"}:
        return list(texts)
    decoded: list[Any] = []
    for index, text in enumerate(texts):
        try:
            if text is None:
                decoded.append(None)
            elif content_type == "base64":
                decoded.append(_read_text(name, index, base64.b64decode(text, validate=True)))
            else:
                decoded.append(msgspec.json.decode(text))
        except (ValueError, RecursionError):
            raise malformed(f"{name}: value {index} is not {content_type}, which its content_type says") from None
    return decoded


def encode_bytes(datatype: str, values: Sequence[Any]) -> bytes:
    """Return values in the binary form. A missing value is NaN, or an empty text."""
    if datatype == "BYTES":
        texts = [b"" if value is None else value.encode() for value in values]
        return b"".join(chain.from_iterable((len(text).to_bytes(4, "little"), text) for text in texts))
    if None in values:
        values = [math.nan if value is None else value for value in values]
    return struct.pack(f"<{len(values)}{_FORMATS[datatype]}", *values)
