"""Empty a queue: every job in it ends as cancelled, and its message is removed in the same step.

    read a page of messages ─> find their ids ─> remove each message that is still there, and publish its outcome

A job that moves meanwhile is not touched: its message is no longer where it was read. Leased jobs finish. A job of
a Celery canvas is cancelled, and its message stays: the worker that drops it runs what follows the job.
"""

from __future__ import annotations

import hashlib
from datetime import datetime

import msgspec

from headrace.connection.commands import Argument, Command, Operation, Script
from headrace.results.cancellation import CANCELLED_SECONDS
from headrace.results.notices import names_of_notices
from headrace.results.publish import PUBLISH_FUNCTION
from headrace.wire.attempts import decode_delayed, decode_queued_message
from headrace.wire.foreign_message import scan_id
from headrace.wire.keys import Keys
from headrace.wire.outcome import Cancelled, encode_outcome
from headrace.wire.parsing import MalformedMessage, parse
from headrace.wire.queues import holds_histories

#: Messages, and bytes, of one page, so that a step holds Redis for a few milliseconds.
_PAGE_MESSAGES, _PAGE_BYTES = 250, 1024 * 1024

#: KEYS: a list or a sorted set. ARGV: `list` or `zset`, messages to skip, most messages, most bytes. Returns
#: messages from the end where they are claimed, one at least. The cost is linear in their number and bytes.
_READ = Script(
    "read_messages",
    """
local key, kind, skip, count, room = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local messages = {}
for i = skip, skip + count - 1 do
  local message
  if kind == 'list' then message = redis.call('LINDEX', key, -1 - i)
  else message = redis.call('ZRANGEBYSCORE', key, '-inf', '+inf', 'LIMIT', i, 1)[1] end
  if not message then break end
  messages[#messages + 1] = message
  room = room - #message
  if room <= 0 then break end
end
return messages
""",
    flag="no-writes",
)

#: KEYS: a list or a sorted set, the mark of cancellations, those of notices, and the result key and record of each
#: message's job. ARGV: `list` or `zset`, seconds of outcomes, seconds of the mark, and of each message its SHA-1
#: or itself, its outcome ('' without a job), 1 if the message stays. Returns the number of messages that were
#: there, and of published outcomes. The messages of a list are removed from its right end; one that stays goes to
#: the left end. The cost is linear in their number and bytes.
_PURGE = Script(
    "purge_jobs",
    PUBLISH_FUNCTION
    + """
local key, cancelled, kind, ttl, mark_seconds = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]
checked(kind == 'list' and 'LLEN' or 'ZCARD', key)
local notices = notice_keys(3)
local met, published, any_stays = 0, 0, false
for i = 4, #ARGV, 3 do
  local id, outcome, stays, is_met = ARGV[i], ARGV[i + 1], ARGV[i + 2] == '1', nil
  if kind == 'list' then
    local message = redis.call('LINDEX', key, -1)
    is_met = message and redis.sha1hex(message) == id
    if is_met then
      redis.call('RPOP', key)
      if stays then redis.call('LPUSH', key, message) end
    end
  elseif stays then is_met = redis.call('ZSCORE', key, id)
  else is_met = redis.call('ZREM', key, id) == 1 end
  if is_met then
    met = met + 1
    any_stays = any_stays or stays
    local first = 8 + (i - 4) / 3 * 2
    local result_key, record_key = KEYS[first], KEYS[first + 1]
    if outcome ~= '' then published = published + publish(result_key, record_key, ttl, outcome, notices) end
  end
end
if any_stays then redis.call('SET', cancelled, 1, 'EX', mark_seconds) end
return {met, published}
""",
    flag="allow-oom",
)


class PurgeResult(msgspec.Struct, frozen=True, kw_only=True):
    """The messages that a purge has processed so far."""

    #: Jobs that ended as cancelled.
    cancelled: int = 0
    #: Messages that were removed without an outcome: their job had one, or no id could be read.
    removed: int = 0


class _Entry(msgspec.Struct, frozen=True):
    """A message of a page."""

    #: What the script recognises it by.
    token: str | bytes
    #: The id of its job; None if it cannot be read.
    job: str | None
    #: The message stays: a worker is to run what follows the job.
    stays: bool


class QueuePurge:
    """The purge of one queue, a page at a time. `ttl` is the seconds for which outcomes are stored."""

    def __init__(self, keys: Keys, queue: str, *, ttl: int) -> None:
        self._keys, self._ttl = keys, ttl
        #: The keys that are not empty yet. Delayed jobs move to the lists when they are due, so they are first.
        self._places = [
            ("zset", keys.delayed(queue), False),
            *(("list", key, holds_histories(source)) for source, key in enumerate(keys.sources(queue))),
            *(("list", key, False) for key, _ in keys.foreign_lists(queue)),
        ]
        #: Messages of the first of these keys that are yet to be read, None before the first; and those that stay.
        self._remaining: int | None = None
        self._staying = 0
        self.result = PurgeResult()

    @property
    def finished(self) -> bool:
        """True if every place has been emptied of the messages that were in it."""
        return not self._places

    def step(self, now: datetime) -> Operation[None]:
        """Purge one page. Raises ResponseError, also if a key is of another type."""
        kind, key, with_history = self._places[0]
        if self._remaining is None:
            self._remaining = yield Command(("LLEN" if kind == "list" else "ZCARD", key))
        messages: list[bytes] = []
        if self._remaining > 0:
            count, skip = min(_PAGE_MESSAGES, self._remaining), self._staying if kind == "zset" else 0
            messages = yield _READ([key], [kind, skip, count, _PAGE_BYTES])
        if not messages:
            self._places.pop(0)
            self._remaining, self._staying = None, 0
            return
        self._remaining -= len(messages)
        entries = [_make_entry(kind, message, with_history=with_history) for message in messages]
        self._staying += sum(entry.stays for entry in entries)
        met, published = yield self._command(kind, key, entries, now)
        result = self.result
        self.result = PurgeResult(cancelled=result.cancelled + published, removed=result.removed + met - published)

    def _command(self, kind: str, key: str, entries: list[_Entry], now: datetime) -> Command:
        names = [key, self._keys.cancelled, *names_of_notices(self._keys)]
        arguments: list[Argument] = [kind, self._ttl, CANCELLED_SECONDS]
        for entry in entries:
            job = entry.job or ""
            names += [self._keys.result(job), self._keys.job(job)]
            outcome = encode_outcome(Cancelled(job=job), now) if job else b""
            arguments += [entry.token, outcome, int(entry.stays)]
        return _PURGE(names, arguments)


def _make_entry(kind: str, stored: bytes, *, with_history: bool) -> _Entry:
    source, queued_message = decode_delayed(stored) if kind == "zset" else (0, stored)
    if with_history or (kind == "zset" and holds_histories(source)):
        queued_message = decode_queued_message(queued_message)[1]
    token = stored if kind == "zset" else hashlib.sha1(stored, usedforsecurity=False).hexdigest()
    try:
        parsed = parse(queued_message)
    except MalformedMessage:
        return _Entry(token, scan_id(queued_message), stays=False)
    return _Entry(token, parsed.id, stays=parsed.canvas is not None)
