"""Keys that jobs are signed with: who has none can neither make a job nor change one.

A signature is an HMAC-SHA256 over the id, the deadline and the arguments (model, instances, version, method,
metadata). It stands in the headers of the message as `<key id>:<base64>`. Every key
verifies; the first one signs: so keys are changed one after the other, and nobody stops.
"""

from __future__ import annotations

import binascii
import hmac
import re

import msgspec

from headrace.errors import SettingError

#: The header of a message that holds the signature.
SIGNATURE_HEADER = "headrace-signature"

_KEY_ID = re.compile(r"[A-Za-z0-9_.-]{1,32}")
#: Characters of a secret at the least: 16 random bytes, as base64 has them.
_FEWEST = 22


class JobKeys(msgspec.Struct, frozen=True):
    """The keys a setting holds, by id. Not to be printed."""

    secrets: dict[str, bytes]

    @classmethod
    def parse(cls, text: str) -> JobKeys | None:
        """The keys in `id:secret,id:secret`; None where there are none. Raises SettingError, without a secret."""
        secrets: dict[str, bytes] = {}
        for number, one in enumerate(filter(None, re.split(r"[,\s]+", text)), 1):
            name, _, secret = one.partition(":")
            if not _KEY_ID.fullmatch(name) or not secret:
                raise SettingError(
                    f"HEADRACE_JOB_KEYS cannot be used: key {number} is not id:secret, with an id of 1 to 32 "
                    "letters, digits, '-', '_' or '.'"
                )
            if len(secret) < _FEWEST:
                raise SettingError(
                    f"HEADRACE_JOB_KEYS cannot be used: the secret of key {name!r} is too short to be one; "
                    "make it with `openssl rand -base64 32`"
                )
            if name in secrets:
                raise SettingError(f"HEADRACE_JOB_KEYS cannot be used: it has two keys {name!r}")
            secrets[name] = secret.encode()
        return cls(secrets) if secrets else None

    def sign(self, job: str, expires: str | None, body: bytes) -> bytes:
        """The signature of a job. `expires` and `body` are as they stand in the message."""
        name, secret = next(iter(self.secrets.items()))
        return name.encode() + b":" + _mac(secret, job, expires, body)

    def check(self, job: str, expires: object, body: bytes, signature: object) -> str | None:
        """Why a signature does not count; None where it does."""
        if not isinstance(signature, str):
            return "the job is not signed"
        name, _, given = signature.partition(":")
        secret = self.secrets.get(name)
        if secret is None:
            return f"the job is signed with a key this worker does not have: {name[:32]!r}"
        wanted = _mac(secret, job, expires if isinstance(expires, str) else None, body)
        if not hmac.compare_digest(wanted, given.encode()):
            return f"the signature by key {name!r} is not of this job: its id, deadline or arguments were changed"
        return None


class Trust(msgspec.Struct, frozen=True):
    """Whose jobs a worker takes."""

    keys: JobKeys
    #: Whether a job without a signature is refused.
    required: bool

    def check(self, job: str, expires: object, body: bytes, signature: object) -> str | None:
        """Why a job is not taken; None where it is."""
        if signature is None and not self.required:
            return None
        return self.keys.check(job, expires, body, signature)


def _mac(secret: bytes, job: str, expires: str | None, body: bytes) -> bytes:
    signed = b"%b\n%b\n%b" % (job.encode("utf-8", "replace"), (expires or "").encode("utf-8", "replace"), body)
    return binascii.b2a_base64(hmac.digest(secret, signed, "sha256"), newline=False)
