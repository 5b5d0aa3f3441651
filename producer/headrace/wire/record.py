"""The record of a job: what Redis holds of a job besides its message while the job's id is protected.

The record (`Keys.job`) is a string: a digest of the submitted arguments, and a `Record` as JSON.

The JSON of a job whose end is to be notified, and no other, begins with NOTIFY_MARK: `notify` is the first field,
and fields at their default are left out. `listen` is the next field, and the model stands behind it. So a script
finds out with GETRANGE, from DIGEST_BYTES on, without reading the record. The names need no JSON escapes
(`headrace.wire.names.check_short_name`), and each ends at the next quote.
"""

from __future__ import annotations

import hashlib

import msgspec

from headrace.wire.queues import bulk_queue_name, queue_name
from headrace.wire.stored import decode_stored

#: Length of the digest at the start of a record, in bytes.
DIGEST_BYTES = 12
#: The start of the JSON of a job with a notice, right behind the digest.
NOTIFY_MARK = b'{"h":"'
#: Bytes that hold the endpoint, the listener and the model of a record, and what JSON writes around them.
NAMES_BYTES = 160


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The JSON part of a record. Its names are short, as there may be millions of records."""

    #: The endpoint that is notified of the job's outcome. It must stay the first field, for NOTIFY_MARK.
    notify: str | None = msgspec.field(default=None, name="h")
    #: The listeners that receive the job's outcome. It must stay the second field, and the model the third.
    listen: str | None = msgspec.field(default=None, name="l")
    model: str = msgspec.field(name="m")
    #: The time of submission, unix milliseconds. None: the id of the job holds it.
    submitted_ms: int | None = msgspec.field(default=None, name="t")
    #: The job is not started before this moment, unix milliseconds.
    not_before_ms: int | None = msgspec.field(default=None, name="e")
    #: Text pairs of the submitter's own.
    metadata: dict[str, str] | None = msgspec.field(default=None, name="x")
    #: True for a job of a bulk run.
    is_bulk: bool = msgspec.field(default=False, name="b")
    #: The caller of the HTTP gateway that the job belongs to; None for a producer's job.
    owner: str | None = msgspec.field(default=None, name="o")
    #: The id of the job's trace, 32 hexadecimal digits; None for a job without one.
    trace: str | None = msgspec.field(default=None, name="r")

    @property
    def queue(self) -> str:
        """The queue that the job was submitted to."""
        return bulk_queue_name(self.model) if self.is_bulk else queue_name(self.model)


_RECORD = msgspec.json.Decoder(Record)


def decode_record(job: str, stored: bytes) -> Record:
    """Decode the record of a job as it is stored in Redis. Raises StoredDataError."""
    return decode_stored(_RECORD.decode, stored[DIGEST_BYTES:], f"the record of job {job}")


def digest_arguments(model: str, version: str | None, method: str | None, content: bytes) -> bytes:
    """Return the digest of a job's arguments. `content` is its instances, or its step, as JSON."""
    head = msgspec.json.encode([model, version, method])
    return hashlib.blake2b(head + content, digest_size=DIGEST_BYTES).digest()
