"""API keys of the HTTP gateway: `hr_<caller>_<secret>`, and what is stored of one.

A secret is 32 random bytes, written with 43 digits and letters (base 62). Redis holds the SHA-256 of the whole
key: 256 random bits cannot be guessed from their digest, so a slow hash would protect nothing more.
"""

from __future__ import annotations

import hashlib
import re
import secrets

from headrace.wire.names import check_short_name

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_BYTES, _SECRET_LENGTH = 32, 43
#: The most characters of a key: prefix, name, secret.
MAX_KEY_LENGTH = len("hr_") + 32 + len("_") + _SECRET_LENGTH
_KEY = re.compile(rf"hr_([A-Za-z0-9][A-Za-z0-9_-]{{0,31}})_[0-9A-Za-z]{{{_SECRET_LENGTH}}}")


def make_api_key(caller: str) -> str:
    """Return a new key of a caller. Raises InvalidInput for a caller's name that is not valid."""
    number = int.from_bytes(secrets.token_bytes(_SECRET_BYTES))
    characters = []
    for _ in range(_SECRET_LENGTH):
        number, digit = divmod(number, len(_DIGITS))
        characters.append(_DIGITS[digit])
    return f"hr_{check_short_name('name', caller)}_{''.join(characters)}"


def read_caller_name(key: str) -> str | None:
    """Return the name of the caller in a key; None for a text that does not have the form of a key."""
    match = _KEY.fullmatch(key)
    return match[1] if match else None


def digest_api_key(key: str) -> str:
    """Return the digest by which a key is stored, 64 hexadecimal digits."""
    return hashlib.sha256(key.encode()).hexdigest()
