"""The record of a job: what Redis holds of a job besides its message while the job's id is protected.

The record (`Keys.job`) is a string: a digest of the submitted arguments, and a `Record` as JSON.
"""

from __future__ import annotations

import msgspec

from headrace.wire.stored import decode_stored

#: Length of the digest at the start of a record, in bytes.
DIGEST_BYTES = 12


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The JSON part of a record. Its names are short, as there may be millions of records."""

    model: str = msgspec.field(name="m")
    #: The time of submission, unix milliseconds. None: the id of the job holds it.
    submitted_ms: int | None = msgspec.field(default=None, name="t")
    #: The job is not started before this moment, unix milliseconds.
    not_before_ms: int | None = msgspec.field(default=None, name="e")
    #: Text pairs of the submitter's own.
    metadata: dict[str, str] | None = msgspec.field(default=None, name="x")


_RECORD = msgspec.json.Decoder(Record)


def decode_record(job: str, stored: bytes) -> Record:
    """Decode the record of a job as it is stored in Redis. Raises StoredDataError."""
    return decode_stored(_RECORD.decode, stored[DIGEST_BYTES:], f"the record of job {job}")
