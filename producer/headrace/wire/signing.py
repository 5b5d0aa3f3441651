"""Keys that jobs are signed with. Without a key, nobody can make a job, change one, or send one a second time.

A signature is an HMAC-SHA256 over the content of a job (`SignedContent`) and the time of signing. It is a header
of the message, `<key id>:<unix seconds>:<base64>`. The first key signs, and every key verifies. So keys can be
changed one after the other while producers and workers run.
"""

from __future__ import annotations

import binascii
import hmac
import re
from datetime import UTC, datetime

import msgspec

from headrace.errors import SettingError

#: The header of a message for the signature.
SIGNATURE_HEADER = "headrace-signature"

_KEY_ID = re.compile(r"[A-Za-z0-9_.-]{1,32}")
#: Minimum length of a secret, in characters: 16 random bytes in base64.
_MIN_SECRET_CHARACTERS = 22
#: Seconds by which the clock of a producer may be ahead of Redis's.
_MAX_CLOCK_AHEAD = 300
_SECONDS = re.compile(r"[0-9]{1,11}")


class SignedContent(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a job that its signature covers, as it is written in the message."""

    job: str
    #: The queue that the job waits in.
    queue: str
    #: The reply channel that the message names; empty for none.
    reply_to: str
    eta: str | None
    expires: str | None
    #: Model, instances, options and callbacks.
    body: bytes

    def encode(self, signed_at: str) -> bytes:
        """Return the bytes that are signed. The length of each field keeps two contents from being alike."""
        texts = (signed_at, self.job, self.queue, self.reply_to, self.eta or "", self.expires or "")
        fields = [*(text.encode("utf-8", "replace") for text in texts), self.body]
        return b"headrace-2 %b\n%b" % (b" ".join(b"%d" % len(field) for field in fields), b"".join(fields))


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

    def sign(self, content: SignedContent, now: float) -> bytes:
        """Return the signature of a job, signed at `now`, in unix seconds."""
        name, secret = next(iter(self.secrets.items()))
        signed_at = str(int(now))
        return b"%b:%b:%b" % (name.encode(), signed_at.encode(), _mac(secret, content, signed_at))

    def find_problem(self, content: SignedContent, signature: object) -> str | None:
        """Return the reason why a signature is not valid, whatever its age; None if it is."""
        if not isinstance(signature, str):
            return "the job is not signed"
        name, _, rest = signature.partition(":")
        secret = self.secrets.get(name)
        if secret is None:
            return f"the job is signed with a key this worker does not have: {name[:32]!r}"
        signed_at, _, mac = rest.partition(":")
        # The time is read only after it was proven.
        if not hmac.compare_digest(_mac(secret, content, signed_at), mac.encode("utf-8", "replace")):
            return (
                f"the signature by key {name!r} does not match the job: its id, queue, reply address, times or "
                "arguments were changed"
            )
        return None


class Trust(msgspec.Struct, frozen=True, kw_only=True):
    """The jobs a worker trusts: those signed with its keys, not too long ago."""

    keys: JobKeys
    #: True: jobs without a signature are refused. False: they are trusted.
    required: bool
    #: Seconds after its signing, or after its `eta`, for which a job is accepted.
    max_age: int = 86_400

    def find_problem(self, content: SignedContent, signature: object, now: float) -> str | None:
        """Return the reason why a job is not trusted at `now`, in unix seconds; None if it is."""
        if signature is None and not self.required:
            return None
        problem = self.keys.find_problem(content, signature)
        if problem is not None:
            return problem
        signed_at = read_signing_time(signature)
        if signed_at is None or signed_at > now + _MAX_CLOCK_AHEAD:
            return "the job was signed in the future; set the clock of its producer"
        age = now - max(signed_at, _unix_seconds(content.eta))
        if age > self.max_age:
            return (
                f"the job was signed {age:,.0f} seconds ago, and HEADRACE_MAX_SIGNATURE_AGE is {self.max_age:,}; "
                "submit it again, or replay it with HEADRACE_JOB_KEYS set"
            )
        return None


def read_signing_time(signature: object) -> int | None:
    """Return the time of signing in a signature, in unix seconds; None if it holds none. It is not verified."""
    fields = signature.split(":", 2) if isinstance(signature, str) else []
    return int(fields[1]) if len(fields) == 3 and _SECONDS.fullmatch(fields[1]) else None


def _unix_seconds(moment: str | None) -> float:
    """Return a moment in ISO 8601 as unix seconds; 0 for None, and for a text that is none."""
    try:
        parsed = datetime.fromisoformat(moment or "")
        # Celery writes no time zone for UTC.
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _mac(secret: bytes, content: SignedContent, signed_at: str) -> bytes:
    return binascii.b2a_base64(hmac.digest(secret, content.encode(signed_at), "sha256"), newline=False)
