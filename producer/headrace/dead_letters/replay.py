"""Prepares a dead letter to be run again: the message without deadline and delay, and the record of the job."""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from headrace.errors import InvalidInput, SettingError
from headrace.submit.enqueue import JobEncoder
from headrace.wire.attempts import REPLAY, Attempt, encode_queued_message, must_run_alone
from headrace.wire.dead_letter import DeadLetterWithMessage
from headrace.wire.keys import model_name
from headrace.wire.message import Job, describe_job
from headrace.wire.parsing import MalformedMessage, parse
from headrace.wire.signing import SIGNATURE_HEADER, JobKeys

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_BODY = msgspec.json.Decoder(tuple[tuple[msgspec.Raw, ...], dict[str, msgspec.Raw], msgspec.Raw])


class PreparedReplay(msgspec.Struct, frozen=True, kw_only=True):
    """A letter ready to be put back on its queue."""

    letter: DeadLetterWithMessage
    #: The priority in its message, as any Celery client may have written it.
    priority: int
    #: True for a job that must run with no other job.
    isolated: bool
    queued_message: bytes
    #: The record of the job, in case the stored one has expired; empty where its arguments are not a job's.
    record: bytes


def prepare_replay(
    letter: DeadLetterWithMessage,
    *,
    replayed_by: str,
    now_ms: int,
    version: str | None,
    keys: JobKeys | None = None,
) -> PreparedReplay:
    """Prepare a letter to be run again, on `version` if it is not None.

    `replayed_by` is written into the job's history, with `now_ms`, the server's unix milliseconds. The deadline
    and the delay of the first submission are dropped. A job with a valid signature is signed again with `keys`
    where the signed content changes. Raises MalformedMessage, and SettingError where keys are needed and there are
    none.
    """
    if model_name(letter.queue) is None:
        raise MalformedMessage("it comes from no queue of a model")
    message = letter.payload
    parsed = parse(message)
    job, record = None, b""
    try:
        job = parsed.to_job()
        record = _encode_record(job, message, now_ms)
    except InvalidInput:
        job = None
    has_other_version = job is not None and version not in {None, job.version}
    if parsed.eta is not None or parsed.expires is not None or has_other_version:
        message = _rewrite(message, job, version, keys)
    history = (*letter.attempts, Attempt(cause=REPLAY, owner=replayed_by, at_ms=now_ms, claim_size=0))
    return PreparedReplay(
        letter=letter,
        priority=parsed.priority,
        isolated=must_run_alone(history),
        queued_message=encode_queued_message(history, message),
        record=record,
    )


def _encode_record(job: Job, message: bytes, now_ms: int) -> bytes:
    """Return the record that a submission of this job writes: it protects the id from another input."""
    (_, instances), *_ = _BODY.decode(_decode_body(_OBJECT.decode(message)))
    encoder = JobEncoder(msgspec.structs.replace(job, eta=None, expires=None), job.version)
    return encoder.encode(job.id, bytes(instances)).digest + encoder.encode_record(now_ms)


def _rewrite(message: bytes, job: Job | None, version: str | None, keys: JobKeys | None) -> bytes:
    """Return the message without deadline and delay, and for `version`; every other byte stays the same."""
    fields: dict[str, Any] = dict(_OBJECT.decode(message))
    headers: dict[str, Any] = dict(_OBJECT.decode(fields["headers"]))
    signed = _SignedContent.from_message(fields, headers)
    headers |= {"eta": None, "expires": None}
    if job is not None and version is not None:
        args, options, embed = _BODY.decode(_decode_body(fields))
        body = msgspec.json.encode((args, {**options, "version": version}, embed))
        fields["body"] = base64.b64encode(body).decode() if _is_body_base64(fields) else body.decode()
        headers["argsrepr"] = describe_job(job.model, version, len(job.instances))
    if signed is not None and job is not None:
        body_text = msgspec.json.decode(msgspec.json.encode(fields["body"]), type=str)
        changed = msgspec.structs.replace(signed, expires=None, body=body_text)
        headers[SIGNATURE_HEADER] = signed.sign_again(changed, job.id, keys)
    fields["headers"] = headers
    return msgspec.json.encode(fields)


class _SignedContent(msgspec.Struct, frozen=True):
    """The signature of a message, and the content that it covers besides the id."""

    signature: str
    expires: str | None
    body: str

    @classmethod
    def from_message(cls, fields: dict[str, Any], headers: dict[str, Any]) -> _SignedContent | None:
        """Read the signed content of a message; None for a message without a signature."""
        signature = msgspec.json.decode(headers.get(SIGNATURE_HEADER, b"null"))
        if not isinstance(signature, str):
            return None
        expires = msgspec.json.decode(headers.get("expires", b"null"))
        return cls(signature, expires, msgspec.json.decode(fields["body"], type=str))

    def sign_again(self, changed: _SignedContent, job: str, keys: JobKeys | None) -> str:
        """Return the signature of the changed content. An invalid signature stays as it is, so stays invalid."""
        if changed == self:
            return self.signature
        if keys is None:
            raise SettingError(
                f"job {job} is signed, and this replay changes the signed content: set HEADRACE_JOB_KEYS to the "
                "keys of the producers"
            )
        if keys.check(job, self.expires, self.body.encode(), self.signature) is not None:
            return self.signature
        return keys.sign(job, changed.expires, changed.body.encode()).decode()


def _decode_body(fields: dict[str, Any]) -> bytes:
    body = msgspec.json.decode(fields["body"], type=str)
    return base64.b64decode(body) if _is_body_base64(fields) else body.encode()


def _is_body_base64(fields: dict[str, Any]) -> bool:
    return bool(msgspec.json.decode(fields["properties"]).get("body_encoding") == "base64")
