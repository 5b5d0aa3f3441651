"""Send a dead letter's job again: the frame it becomes, and the script that moves it, whole or not at all."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import msgspec

from headrace.errors import InvalidInput, SettingError
from headrace.results import publish
from headrace.submit.enqueue import JobEncoder
from headrace.wire.attempts import REPLAY, Attempt, encode_queued_message, must_run_alone
from headrace.wire.dead_letter import DeadLetterWithMessage
from headrace.wire.keys import PRIORITY_STEPS, Keys, model_name, priority_index
from headrace.wire.message import Job, describe_job
from headrace.wire.parsing import MalformedMessage, parse
from headrace.wire.signing import SIGNATURE_HEADER, JobKeys


class LetterResult(IntEnum):
    """What became of a letter that was to be replayed or purged."""

    #: It was purged, replayed, or replaced by one that died since, before its turn came.
    ALREADY_HANDLED = 0
    DONE = 1
    #: Its id has another outcome than this failure, or another job under way.
    ID_IN_USE = 2
    #: Its bytes are no job: there is nothing a worker could do with them.
    MALFORMED = 3


#: KEYS: died, dead, dead messages; then result key, record and target list of each letter.
#: ARGV: seconds a record is kept; then id, moment it died, frame, and record (or '') of each letter.
#: Returns a Fate for each. The frame lies in the list before the letter goes: an error between the two keeps it.
SCRIPT = (
    publish.STATUS_FUNCTION
    + """
-- A full Redis refuses a script whose first write takes memory; and a key of another kind must fail before it.
redis.call('PERSIST', KEYS[1])
redis.call('HLEN', KEYS[2])
local fates = {}
for i = 1, (#KEYS - 3) / 3 do
  local result, record, target = KEYS[3 * i + 1], KEYS[3 * i + 2], KEYS[3 * i + 3]
  local id, died, frame, anew = ARGV[4 * i - 2], ARGV[4 * i - 1], ARGV[4 * i], ARGV[4 * i + 1]
  local found = redis.call('ZSCORE', KEYS[1], id)
  if not found or tonumber(found) ~= tonumber(died) or redis.call('HEXISTS', KEYS[3], id) == 0 then
    fates[i] = 0
  elseif status_of(result) ~= 'FAILURE' and redis.call('EXISTS', result, record) > 0 then
    fates[i] = 2
  else
    redis.call('LPUSH', target, frame)
    redis.call('DEL', result)
    if redis.call('EXPIRE', record, ARGV[1]) == 0 and anew ~= '' then
      redis.call('SET', record, anew, 'EX', ARGV[1])
    end
    redis.call('HDEL', KEYS[2], id)
    redis.call('HDEL', KEYS[3], id)
    redis.call('ZREM', KEYS[1], id)
    fates[i] = 1
  end
end
return fates
"""
)

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_BODY = msgspec.json.Decoder(tuple[tuple[msgspec.Raw, ...], dict[str, msgspec.Raw], msgspec.Raw])


class PreparedReplay(msgspec.Struct, frozen=True, kw_only=True):
    """A letter ready to be sent again."""

    letter: DeadLetterWithMessage
    #: The priority its message asks for, and whether it is to run with no other job.
    priority: int
    isolated: bool
    queued_message: bytes
    #: The record of the job, should it be forgotten; empty where its arguments are no job's.
    record: bytes


def prepare(
    letter: DeadLetterWithMessage, *, who: str, now_ms: int, version: str | None, keys: JobKeys | None = None
) -> PreparedReplay:
    """A letter as it is sent again by `who` at that moment (the server's unix milliseconds).

    Its deadline and its delay are dropped: they were about the first time. A job whose signature counts with
    `keys` is signed anew where that changes what is signed. Raises MalformedMessage, and
    SettingError without the keys.
    """
    if model_name(letter.queue) is None:
        raise MalformedMessage("it comes from no queue of a model")
    sealed = parse(letter.payload)
    try:
        job = sealed.to_job()
        record = _record(job, letter.payload, now_ms)
    except InvalidInput:
        job, record = None, b""
    message = letter.payload
    if sealed.eta is not None or sealed.expires is not None or (job and version not in {None, job.version}):
        message = _rewritten(message, job, version, keys)
    history = (*letter.attempts, Attempt(cause=REPLAY, owner=who, at_ms=now_ms, claim_size=0))
    return PreparedReplay(
        letter=letter,
        priority=sealed.priority,
        isolated=must_run_alone(history),
        queued_message=encode_queued_message(history, message),
        record=record,
    )


def call(keys: Keys, replays: Sequence[PreparedReplay], *, ttl: int) -> tuple[list[str], list[str | bytes | int]]:
    """KEYS and ARGV of the script. `ttl` is the seconds a record is kept."""
    names = [keys.dead_times, keys.dead, keys.dead_messages]
    values: list[str | bytes | int] = [ttl]
    for one in replays:
        letter = one.letter
        names += [keys.result(letter.id), keys.job(letter.id), _target(keys, one)]
        values += [letter.id, letter.died_ms, one.queued_message, one.record]
    return names, values


def _target(keys: Keys, one: PreparedReplay) -> str:
    if one.isolated:
        return keys.isolated(one.letter.queue)
    # Any client may have written any number.
    return keys.lists(one.letter.queue)[priority_index(min(max(one.priority, 0), PRIORITY_STEPS[-1]))]


def _record(job: Job, message: bytes, now_ms: int) -> bytes:
    """The record a submit of this job writes, so that its id stays protected from another input."""
    (_, instances), *_ = _BODY.decode(_body(_OBJECT.decode(message)))
    packer = JobEncoder(msgspec.structs.replace(job, eta=None, expires=None), job.version)
    return packer.encode(job.id, bytes(instances)).digest + packer.encode_record(now_ms)


def _rewritten(message: bytes, job: Job | None, version: str | None, keys: JobKeys | None) -> bytes:
    """The message without deadline and delay, and for that version; all else in it stays as it is, to the byte."""
    parts: dict[str, Any] = dict(_OBJECT.decode(message))
    headers: dict[str, Any] = dict(_OBJECT.decode(parts["headers"]))
    signed = _Signed.from_message(parts, headers)
    headers |= {"eta": None, "expires": None}
    if job is not None and version is not None:
        args, options, embed = _BODY.decode(_body(parts))
        body = msgspec.json.encode((args, {**options, "version": version}, embed))
        encoded = msgspec.json.decode(parts["properties"]).get("body_encoding") == "base64"
        parts["body"] = base64.b64encode(body).decode() if encoded else body.decode()
        headers["argsrepr"] = describe_job(job.model, version, len(job.instances))
    if signed is not None and job is not None:
        changed = msgspec.structs.replace(
            signed, expires=None, body=msgspec.json.decode(msgspec.json.encode(parts["body"]), type=str)
        )
        headers[SIGNATURE_HEADER] = signed.again(changed, job.id, keys)
    parts["headers"] = headers
    return msgspec.json.encode(parts)


class _Signed(msgspec.Struct, frozen=True):
    """What a signature is over, beside the id."""

    signature: str
    expires: str | None
    body: str

    @classmethod
    def from_message(cls, parts: dict[str, Any], headers: dict[str, Any]) -> _Signed | None:
        """That of a message; None where it is not signed."""
        found = {name: msgspec.json.decode(headers.get(name, b"null")) for name in (SIGNATURE_HEADER, "expires")}
        if not isinstance(found[SIGNATURE_HEADER], str):
            return None
        return cls(found[SIGNATURE_HEADER], found["expires"], msgspec.json.decode(parts["body"], type=str))

    def again(self, changed: _Signed, job: str, keys: JobKeys | None) -> str:
        """The signature of the message as it was changed. One that did not count before counts no more after."""
        if changed == self:
            return self.signature
        if keys is None:
            raise SettingError(
                f"job {job} is signed, and to replay it changes what the signature is over: set HEADRACE_JOB_KEYS "
                "to the keys of the producers"
            )
        if keys.check(job, self.expires, self.body.encode(), self.signature) is not None:
            return self.signature
        return keys.sign(job, changed.expires, changed.body.encode()).decode()


def _body(parts: dict[str, Any]) -> bytes:
    body = msgspec.json.decode(parts["body"], type=str)
    encoded = msgspec.json.decode(parts["properties"]).get("body_encoding") == "base64"
    return base64.b64decode(body) if encoded else body.encode()
