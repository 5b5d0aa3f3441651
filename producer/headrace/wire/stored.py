"""Decoding of what is stored in Redis or in a file: one kind of error, which names the thing.

Anybody who can write to Redis may store anything there: bytes that are no UTF-8, cut JSON, another shape, a key of
another type. `decode_stored` raises StoredDataError for all of these. Of several things, `decode_items` skips
those that are damaged and logs their names, so that the others are still served.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, TypeVar

from headrace.errors import StoredDataError

log = logging.getLogger("headrace.stored")

T = TypeVar("T")

#: The errors of decoders. DecodeError and UnicodeDecodeError are ValueErrors; deep JSON is a RecursionError.
DECODE_ERRORS = (ValueError, TypeError, LookupError, RecursionError)


def decode_stored(decode: Callable[[bytes], T], stored: bytes, name: str) -> T:
    """Return the decoded value of the thing with this name. Raises StoredDataError.

    `decode` may raise what decoders raise (DECODE_ERRORS).
    """
    try:
        return decode(stored)
    except DECODE_ERRORS as error:
        raise damaged(name, error) from None


def decode_items(
    decode: Callable[[bytes], T], items: Iterable[tuple[bytes | str, bytes]], name: str
) -> Iterator[tuple[str, T]]:
    """Yield the decoded values of a key's items, each with its name. A damaged item is skipped and logged once."""
    for item, stored in items:
        try:
            text = item if isinstance(item, str) else item.decode()
            yield text, decode(stored)
        except DECODE_ERRORS as error:
            report_damaged(f"{show(item)} of {name}", error)


def hash_items(reply: Any, name: str) -> Iterable[tuple[bytes, bytes]]:
    """Return the fields and values in a reply to HGETALL of the key with this name.

    A reply that is an error, as the key is of another type, is logged once, and has no fields.
    """
    if isinstance(reply, Exception):
        report_damaged(name, reply)
        return ()
    return reply.items() if isinstance(reply, Mapping) else zip(reply[::2], reply[1::2], strict=False)


def damaged(name: str, error: Exception) -> StoredDataError:
    """Return the error that names a damaged thing. It quotes nothing of the content."""
    return StoredDataError(
        f"{name} cannot be read ({type(error).__name__}): another program or a newer Headrace wrote it, or it was "
        "damaged; upgrade this one, or delete it"
    )


def report_damaged(name: str, error: Exception) -> None:
    """Log the name of a damaged thing that is skipped, once."""
    _log_once(str(damaged(name, error)))


@lru_cache(maxsize=1024)
def _log_once(message: str) -> None:
    log.warning("%s; it is skipped", message)


def show(name: bytes | str) -> str:
    """Return a name as text of printable characters, at most 100."""
    text = name if isinstance(name, str) else name.decode(errors="backslashreplace")
    return ascii(text[:100])[1:-1]
