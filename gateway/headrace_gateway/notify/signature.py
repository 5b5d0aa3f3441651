"""The headers of Standard Webhooks (https://www.standardwebhooks.com): id, time and signatures of a request."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

#: The prefix of a secret, and the bytes that a secret has behind it, as the specification bounds them.
SECRET_PREFIX = "whsec_"  # noqa: S105  # what every secret begins with
_MIN_BYTES, _MAX_BYTES = 24, 64


def decode_secret(text: str) -> bytes:
    """Return the key in a secret `whsec_<base64 of 24 to 64 bytes>`. Raises ValueError, which quotes nothing."""
    if not text.startswith(SECRET_PREFIX):
        raise ValueError(f"a secret begins with {SECRET_PREFIX}")
    try:
        key = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"a secret is {SECRET_PREFIX} and base64") from None
    if not _MIN_BYTES <= len(key) <= _MAX_BYTES:
        raise ValueError(f"a secret holds {_MIN_BYTES} to {_MAX_BYTES} bytes, got {len(key)}")
    return key


def sign(notice: str, timestamp: int, body: bytes, secrets: Sequence[bytes]) -> dict[str, str]:
    """Return the headers of a request: its id, its time in unix seconds, and a signature of each secret.

    A receiver accepts a request that one of its own secrets verifies, so two secrets allow a rotation.
    """
    content = b"%b.%d.%b" % (notice.encode(), timestamp, body)
    digests = [hmac.digest(secret, content, hashlib.sha256) for secret in secrets]
    return {
        "webhook-id": notice,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests),
    }
