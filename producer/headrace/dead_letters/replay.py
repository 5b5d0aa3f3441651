"""Prepares a dead letter to be run again: the message without deadline and delay, and the record of the job.

The letter of a notice (`headrace.wire.notice`) is delivered again, and so is that of an ended job that listeners
did not handle (`headrace.wire.listening`).
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from headrace.errors import InvalidInput, SettingError, StoredDataError
from headrace.wire.attempts import REPLAY, Attempt, encode_queued_message, select_source
from headrace.wire.dead_letter import DeadLetterWithMessage
from headrace.wire.job_encoder import JobEncoder
from headrace.wire.listening import Entry
from headrace.wire.message import (
    LISTEN_HEADER,
    NOTIFY_HEADER,
    OWNER_HEADER,
    Job,
    describe_job,
    encode_instances,
    encode_message,
)
from headrace.wire.names import is_short_name
from headrace.wire.notice import decode_notice_message
from headrace.wire.parsing import MalformedMessage, parse
from headrace.wire.queues import model_name
from headrace.wire.signing import SIGNATURE_HEADER, JobKeys, SignedContent

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_BODY = msgspec.json.Decoder(tuple[tuple[msgspec.Raw, ...], dict[str, msgspec.Raw], msgspec.Raw])


class PreparedReplay(msgspec.Struct, frozen=True, kw_only=True):
    """A letter ready to be put back on its queue."""

    letter: DeadLetterWithMessage
    #: The list that it goes to, an index in `Keys.sources`.
    source: int
    queued_message: bytes
    #: The record of the job, in case the stored one has expired; empty where its arguments are not a job's.
    record: bytes


class PreparedNotice(msgspec.Struct, frozen=True, kw_only=True):
    """The letter of a notice, ready to be delivered again."""

    letter: DeadLetterWithMessage
    #: The id of the notice, and the bytes to store.
    notice: str
    stored: bytes


def prepare_notice(letter: DeadLetterWithMessage, *, replayed_by: str, now_ms: int) -> PreparedNotice:
    """Prepare the letter of a notice to be delivered again, with all attempts of the schedule.

    `now_ms` is the server's unix milliseconds. Raises MalformedMessage.
    """
    if letter.is_malformed:
        raise MalformedMessage("it is no notice")
    try:
        notice = decode_notice_message(letter.payload)
    except StoredDataError as error:
        raise MalformedMessage(str(error)) from None
    replay = Attempt(cause=REPLAY, owner=replayed_by, at_ms=now_ms, claim_size=0)
    return PreparedNotice(letter=letter, notice=notice.id, stored=notice.with_attempts((*letter.attempts, replay)))


class PreparedEntry(msgspec.Struct, frozen=True, kw_only=True):
    """The letter of an ended job that listeners did not handle, ready to be delivered again."""

    letter: DeadLetterWithMessage
    entry: Entry


def prepare_entry(letter: DeadLetterWithMessage) -> PreparedEntry:
    """Prepare the letter of an ended job to be delivered again, with all attempts. Raises MalformedMessage."""
    if letter.is_malformed:
        raise MalformedMessage("it is no ended job of listeners")
    try:
        return PreparedEntry(letter=letter, entry=Entry.decode(letter.payload))
    except StoredDataError as error:
        raise MalformedMessage(str(error)) from None


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
    and the delay of the first submission are dropped. A job with a valid signature is signed again with `keys`,
    if there are any. Raises MalformedMessage, and SettingError where the signed content changes without keys.
    """
    if model_name(letter.queue) is None:
        raise MalformedMessage("it comes from no queue of a model")
    message = letter.payload
    parsed = parse(message)
    job, record = None, b""
    try:
        job = parsed.to_job()
        record = _encode_record(job, message, now_ms, is_foreign=parsed.is_foreign)
    except InvalidInput:
        job = None
    has_other_version = job is not None and version not in {None, job.version}
    is_changed = parsed.eta is not None or parsed.expires is not None or has_other_version
    if parsed.is_foreign:
        if is_changed and job is not None:
            message = _encode_anew(job, version)
    elif is_changed or (job is not None and keys is not None and SIGNATURE_HEADER.encode() in message):
        message = _rewrite(message, job, version, keys, queue=letter.queue, now=now_ms / 1000)
    history = (*letter.attempts, Attempt(cause=REPLAY, owner=replayed_by, at_ms=now_ms, claim_size=0))
    return PreparedReplay(
        letter=letter,
        source=select_source(history, parsed.priority),
        queued_message=encode_queued_message(history, message),
        record=record,
    )


def _encode_record(job: Job, message: bytes, now_ms: int, *, is_foreign: bool) -> bytes:
    """Return the record that a submission of this job writes: it protects the id from another input."""
    owner = notify = listen = None
    if is_foreign:
        instances = msgspec.Raw(encode_instances(job.instances))
    else:
        fields = _OBJECT.decode(message)
        (_, instances), *_ = _BODY.decode(_decode_body(fields))
        headers = _OBJECT.decode(fields["headers"])
        owner, notify = _read_name(headers, OWNER_HEADER), _read_name(headers, NOTIFY_HEADER)
        listen = _read_name(headers, LISTEN_HEADER)
    encoder = JobEncoder(
        msgspec.structs.replace(job, eta=None, expires=None, owner=owner, notify=notify, listen=listen),
        job.version,
    )
    return encoder.encode(job.id, bytes(instances)).digest + encoder.encode_record(now_ms)


def _read_name(headers: dict[str, msgspec.Raw], header: str) -> str | None:
    """Return the name in a header; None where there is none, or what is there is no name."""
    name = msgspec.json.decode(headers.get(header, b"null"))
    return name if is_short_name(name) else None


def _encode_anew(job: Job, version: str | None) -> bytes:
    """Return the message of another client's job, as Headrace's client writes it, without eta and deadline."""
    return encode_message(
        msgspec.structs.replace(job, eta=None, expires=None, version=job.version if version is None else version)
    )


def _rewrite(
    message: bytes, job: Job | None, version: str | None, keys: JobKeys | None, *, queue: str, now: float
) -> bytes:
    """Return the message without deadline and delay, for `version`, and signed at `now` if it was signed.

    Every other byte stays the same.
    """
    fields: dict[str, Any] = dict(_OBJECT.decode(message))
    headers: dict[str, Any] = dict(_OBJECT.decode(fields["headers"]))
    signature = msgspec.json.decode(headers.get(SIGNATURE_HEADER, b"null"))
    signed = _read_signed(fields, headers, job.id, queue) if job is not None else None
    headers |= {"eta": None, "expires": None}
    if job is not None and version is not None:
        args, options, embed = _BODY.decode(_decode_body(fields))
        body = msgspec.json.encode((args, {**options, "version": version}, embed))
        fields["body"] = base64.b64encode(body).decode() if _is_body_base64(fields) else body.decode()
        headers["argsrepr"] = describe_job(job.model, version, len(job.instances))
    if signed is not None and isinstance(signature, str):
        body_text = msgspec.json.decode(msgspec.json.encode(fields["body"]), type=str)
        changed = msgspec.structs.replace(signed, eta=None, expires=None, body=body_text.encode())
        headers[SIGNATURE_HEADER] = _sign_again(signed, changed, signature, keys, now)
    fields["headers"] = headers
    return msgspec.json.encode(fields)


def _read_signed(fields: dict[str, Any], headers: dict[str, Any], job: str, queue: str) -> SignedContent:
    """Read the content that a signature of the message covers."""
    properties = msgspec.json.decode(fields["properties"])
    return SignedContent(
        job=job,
        queue=queue,
        reply_to=properties.get("reply_to") or "",
        eta=msgspec.json.decode(headers.get("eta", b"null")),
        expires=msgspec.json.decode(headers.get("expires", b"null")),
        body=msgspec.json.decode(fields["body"], type=str).encode(),
    )


def _sign_again(
    signed: SignedContent, changed: SignedContent, signature: str, keys: JobKeys | None, now: float
) -> str:
    """Return the signature of the changed content. An invalid signature stays as it is, so stays invalid."""
    if keys is None:
        if changed == signed:
            return signature
        raise SettingError(
            f"job {signed.job} is signed, and this replay changes the signed content: set HEADRACE_JOB_KEYS to "
            "the keys of the producers"
        )
    if keys.find_problem(signed, signature) is not None:
        return signature
    return keys.sign(changed, now).decode()


def _decode_body(fields: dict[str, Any]) -> bytes:
    body = msgspec.json.decode(fields["body"], type=str)
    return base64.b64decode(body) if _is_body_base64(fields) else body.encode()


def _is_body_base64(fields: dict[str, Any]) -> bool:
    return bool(msgspec.json.decode(fields["properties"]).get("body_encoding") == "base64")
