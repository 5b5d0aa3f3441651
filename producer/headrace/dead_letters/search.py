"""Find dead letters, oldest first: plans that read a few hundred at a time, and no message unless it is wanted."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from headrace.connection.commands import Operation, Script
from headrace.connection.server_time import READ_SERVER_TIME, decode_server_time
from headrace.dead_letters.filter import CheckedFilter
from headrace.wire.dead_letter import DeadLetter, DeadLetterWithMessage, attach_message, decode_letter
from headrace.wire.keys import Keys

#: Ids one command names, and letters one call of a script deals with: a call should hold Redis for a millisecond.
_PAGE, CHUNK = 1000, 200
#: Bytes of messages one command asks for, but for the last of them.
_BYTES = 1024 * 1024

#: KEYS: died. ARGV: the first moment or `(` and the one before it, the last moment, how many ids.
#: Returns the last moment met ('' at the end) and the ids; those of one moment are never torn apart.
_IDS = Script("""
local found = redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[1], ARGV[2], 'WITHSCORES', 'LIMIT', 0, ARGV[3])
local full = #found >= 2 * tonumber(ARGV[3])
local last, ids = full and found[#found] or '', {}
for i = 1, #found, 2 do
  if found[i + 1] ~= last then ids[#ids + 1] = found[i] end
end
if full then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], last, last)) do ids[#ids + 1] = id end
end
return {last, ids}
""")

#: KEYS: died, dead. ARGV: ids. Returns the moment it died and the line of each.
_LINES = Script("""
local found = {}
for i, id in ipairs(ARGV) do
  found[i] = {redis.call('ZSCORE', KEYS[1], id), redis.call('HGET', KEYS[2], id)}
end
return found
""")

#: KEYS: died, dead, dead messages. ARGV: bytes after which no further message is read; ids.
#: Returns the server's time (ms), then the moment, line and message of as many as were read, one at least.
_WHOLE = Script("""
local at, found, bytes = redis.call('TIME'), {}, 0
found[1] = at[1] .. string.format('%03d', math.floor(at[2] / 1000))
for i = 2, #ARGV do
  if bytes > tonumber(ARGV[1]) then break end
  local message = redis.call('HGET', KEYS[3], ARGV[i])
  found[i] = {redis.call('ZSCORE', KEYS[1], ARGV[i]), redis.call('HGET', KEYS[2], ARGV[i]), message}
  bytes = bytes + (message and #message or 0)
end
return found
""")


class DeadLetterCursor:
    """The letters of a filter, oldest first, a page at a time."""

    def __init__(self, keys: Keys, sought: CheckedFilter) -> None:
        self._keys, self._wanted = keys, sought
        self._ids: deque[bytes | str] = deque(sought.ids or ())
        #: Where the next page begins (as ZRANGEBYSCORE has it) and the last ends; None before and after the walk.
        self._from: str | None = None
        self._first = self._last = 0
        self._begun = False
        #: The ids asked for of which there is no letter.
        self.missing: list[str] = []

    @property
    def exhausted(self) -> bool:
        """Whether there are no more."""
        return self._begun and self._from is None and not self._ids

    def next(self) -> Operation[list[DeadLetter]]:
        """The next letters; sometimes none, though it is not over."""
        if not self._begun:
            now_ms = decode_server_time((yield READ_SERVER_TIME))
            self._first, self._last = self._wanted.time_range(now_ms)
            self._begun = True
            self._from = str(self._first) if self._wanted.ids is None else None
        if not self._ids and self._from is not None:
            last, ids = yield _IDS([self._keys.dead_times], [self._from, self._last, _PAGE])
            self._from = f"({last.decode()}" if last else None
            self._ids.extend(ids)
        asked = [self._ids.popleft() for _ in range(min(CHUNK, len(self._ids)))]
        if not asked:
            return []
        found = yield _LINES([self._keys.dead_times, self._keys.dead], asked)
        return list(self._met(asked, found))

    def _met(
        self, asked: Sequence[bytes | str], found: Sequence[tuple[bytes | None, bytes | None]]
    ) -> Iterator[DeadLetter]:
        for raw, (died, line) in zip(asked, found, strict=True):
            name = raw if isinstance(raw, str) else raw.decode(errors="replace")
            if died is None:
                if self._wanted.ids is not None:
                    self.missing.append(name)
                continue
            met = decode_letter(name, line or b"", int(float(died)))
            if self._first <= met.died_ms <= self._last and self._wanted.matches(met):
                yield met


class MessageCursor:
    """Letters with their messages."""

    def __init__(self, keys: Keys, search: DeadLetterCursor) -> None:
        self._keys, self._search = keys, search
        self._found: deque[DeadLetter] = deque()

    @property
    def exhausted(self) -> bool:
        """Whether there are no more."""
        return self._search.exhausted and not self._found

    def next(self) -> Operation[list[DeadLetterWithMessage]]:
        """The next letters whole; sometimes none, though it is not over."""
        if not self._found:
            self._found.extend((yield from self._search.next()))
        some = [self._found.popleft() for _ in range(min(CHUNK, len(self._found)))]
        if not some:
            return []
        _, whole = yield from read_letters(self._keys, [one.id for one in some])
        self._found.extendleft(reversed(some[len(whole) :]))
        return [one for one in whole if one is not None]


def read_letters(keys: Keys, names: Sequence[str]) -> Operation[tuple[int, list[DeadLetterWithMessage | None]]]:
    """The server's time (ms), and the first of these letters whole, None where there is none; one at least."""
    now_ms, *found = yield _WHOLE([keys.dead_times, keys.dead, keys.dead_messages], [_BYTES, *names])
    whole: list[DeadLetterWithMessage | None] = []
    for name, (died, line, message) in zip(names, found, strict=False):
        if died is None:
            whole.append(None)
        else:
            whole.append(attach_message(decode_letter(name, line or b"", int(float(died))), message or b""))
    return int(now_ms), whole
