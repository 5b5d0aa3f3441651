"""Keys that jobs are signed with. Without a key, nobody can make a job or change one.

A signature is an HMAC-SHA256 over the id, the deadline and the arguments (model, instances, version, method,
metadata). It is a header of the message, `<key id>:<base64>`. The first key signs, and every key verifies. So keys
can be changed one after the other while producers and workers run.
"""

from __future__ import annotations

import binascii
import hmac
import re

import msgspec

from headrace.errors import SettingError

#: The header of a message for the signature.
SIGNATURE_HEADER = "headrace-signature"

_KEY_ID = re.compile(r"[A-Za-z0-9_.-]{1,32}")
#: Minimum length of a secret, in characters: 16 random bytes in base64.
_MIN_SECRET_CHARACTERS = 22


class JobKeys(msgspec.Struct, frozen=True):
    """The keys of the setting `job_keys`, by id. Never print them."""

    secrets: dict[str, bytes]

    @classmethod
    def parse(cls, text: str) -> JobKeys | None:
        """Parse `id:secret,id:secret`; return None for an empty text. Raises SettingError, without a secret."""
        secrets: dict[str, bytes] = {}
        for number, entry in enumerate(filter(None, re.split(r"[,\s]+", text)), 1):
            name, _, secret = entry.partition(":")
            if not _KEY_ID.fullmatch(name) or not secret:
                raise SettingError(
                    f"HEADRACE_JOB_KEYS cannot be used: key {number} is not id:secret, with an id of 1 to 32 "
                    "letters, digits, '-', '_' or '.'"
                )
            if len(secret) < _MIN_SECRET_CHARACTERS:
                raise SettingError(
                    f"HEADRACE_JOB_KEYS cannot be used: the secret of key {name!r} is too short; "
                    "make one with `openssl rand -base64 32`"
                )
            if name in secrets:
                raise SettingError(f"HEADRACE_JOB_KEYS cannot be used: it has two keys {name!r}")
            secrets[name] = secret.encode()
        return cls(secrets) if secrets else None

    def sign(self, job: str, expires: str | None, body: bytes) -> bytes:
        """Return the signature of a job. `expires` and `body` are those of the message, as written there."""
        name, secret = next(iter(self.secrets.items()))
        return name.encode() + b":" + _mac(secret, job, expires, body)

    def check(self, job: str, expires: object, body: bytes, signature: object) -> str | None:
        """Return the reason why a signature is not valid, or None if it is."""
        if not isinstance(signature, str):
            return "the job is not signed"
        name, _, mac = signature.partition(":")
        secret = self.secrets.get(name)
        if secret is None:
            return f"the job is signed with a key this worker does not have: {name[:32]!r}"
        expected = _mac(secret, job, expires if isinstance(expires, str) else None, body)
        if not hmac.compare_digest(expected, mac.encode()):
            return (
                f"the signature by key {name!r} does not match the job: its id, deadline or arguments were changed"
            )
        return None


class Trust(msgspec.Struct, frozen=True):
    """The jobs a worker trusts: those signed with its keys."""

    keys: JobKeys
    #: True: jobs without a signature are refused. False: they are trusted.
    required: bool

    def check(self, job: str, expires: object, body: bytes, signature: object) -> str | None:
        """Return the reason why a job is not trusted, or None if it is."""
        if signature is None and not self.required:
            return None
        return self.keys.check(job, expires, body, signature)


def _mac(secret: bytes, job: str, expires: str | None, body: bytes) -> bytes:
    signed = b"%b\n%b\n%b" % (job.encode("utf-8", "replace"), (expires or "").encode("utf-8", "replace"), body)
    return binascii.b2a_base64(hmac.digest(secret, signed, "sha256"), newline=False)
