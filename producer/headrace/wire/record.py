"""The record of a job: what Redis keeps of a job besides its message, for as long as its id is protected.

The record (`Keys.job`) is a string: a digest of the submitted arguments, and a `Record` as JSON.
"""

from __future__ import annotations

import msgspec

#: Bytes of the digest a record begins with.
DIGEST_BYTES = 12


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of a job besides its message, for as long as an id is protected from a second use."""

    #: The model.
    model: str = msgspec.field(name="m")
    #: Submitted, where the id does not tell, and not to be started before: unix milliseconds.
    submitted_ms: int | None = msgspec.field(default=None, name="t")
    not_before_ms: int | None = msgspec.field(default=None, name="e")
    #: The submitter's metadata.
    metadata: dict[str, str] | None = msgspec.field(default=None, name="x")


_RECORD = msgspec.json.Decoder(Record)


def decode_record(stored: bytes) -> Record:
    """Decode the record as it is stored in Redis."""
    return _RECORD.decode(stored[DIGEST_BYTES:])
