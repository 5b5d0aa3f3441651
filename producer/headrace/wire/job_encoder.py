"""Encode jobs: the message of each, its record, and the digest that tells a repeat from a conflict."""

from __future__ import annotations

import hashlib

import msgspec

from headrace.wire.message import Job, build_template
from headrace.wire.record import DIGEST_BYTES, Record
from headrace.wire.signing import JobKeys


class EncodedJob(msgspec.Struct, frozen=True, gc=False):
    """A job ready to be enqueued: its message, and the digest that tells a repeat from a conflict."""

    job: str
    digest: bytes
    message: bytes


class JobEncoder:
    """Encodes jobs that differ only in id and instances: the rest of their messages is made once.

    `template` is one of these jobs. `version` is the version as the caller named it: None, an alias, or a number.
    `keys` sign the messages.
    """

    def __init__(self, template: Job, version: str | None, keys: JobKeys | None = None) -> None:
        self.template = template
        self._message_template = build_template(template, keys)
        # A repeat names the same version, even if an alias has moved since.
        self._digest_prefix = msgspec.json.encode([template.model, version, template.method])
        #: The record of jobs whose ids hold the time; None until it is asked for.
        self._record: bytes | None = None

    def encode(self, job: str, instances: bytes) -> EncodedJob:
        """Encode a job with this id. `instances` are as many as the template has, as JSON."""
        digest = hashlib.blake2b(self._digest_prefix + instances, digest_size=DIGEST_BYTES).digest()
        return EncodedJob(job, digest, self._message_template.render(job, instances))

    def encode_record(self, submitted_ms: int | None) -> bytes:
        """Encode the record of these jobs, without the digest.

        `submitted_ms` is in unix milliseconds; None if the ids of the jobs hold that time, which saves an eighth
        of the memory that a waiting job takes beside its message.
        """
        if submitted_ms is None:
            if self._record is None:
                self._record = self._encode_record(None)
            return self._record
        return self._encode_record(submitted_ms)

    def _encode_record(self, submitted_ms: int | None) -> bytes:
        template = self.template
        eta_ms = int(template.eta.timestamp() * 1000) if template.eta else None
        return msgspec.json.encode(
            Record(
                model=template.model,
                submitted_ms=submitted_ms,
                not_before_ms=eta_ms,
                metadata=template.metadata,
                is_bulk=template.step is not None,
                owner=template.owner,
                notify=template.notify,
                listen=template.listen,
                trace=template.trace_id,
            )
        )
