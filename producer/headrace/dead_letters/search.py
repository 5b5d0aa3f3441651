"""Cursors over dead letters, oldest first. They read a few hundred letters at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from headrace.clock import decode_unix_ms
from headrace.connection.commands import Operation
from headrace.connection.server_time import READ_SERVER_TIME, decode_server_time
from headrace.dead_letters.filter import CheckedFilter
from headrace.dead_letters.scripts import (
    LETTERS_PER_CALL,
    letters_command,
    letters_with_messages_command,
    page_command,
)
from headrace.wire.dead_letter import DeadLetter, DeadLetterWithMessage, attach_message, decode_letter
from headrace.wire.keys import Keys


class DeadLetterCursor:
    """The letters that match a filter, oldest first, without their messages."""

    def __init__(self, keys: Keys, conditions: CheckedFilter) -> None:
        self._keys, self._filter = keys, conditions
        self._ids: deque[bytes | str] = deque(conditions.ids or ())
        #: The lowest score of the next page (as ZRANGEBYSCORE takes it); None when there is no further page.
        self._next_page: str | None = None
        self._first_ms = self._last_ms = 0
        self._started = False
        #: The ids of the filter without a letter.
        self.missing: list[str] = []

    @property
    def exhausted(self) -> bool:
        """True when there are no more letters."""
        return self._started and self._next_page is None and not self._ids

    def next(self) -> Operation[list[DeadLetter]]:
        """Read the next letters. The list may be empty before the cursor is exhausted."""
        if not self._started:
            now_ms = decode_server_time((yield READ_SERVER_TIME))
            self._first_ms, self._last_ms = self._filter.time_range(now_ms)
            self._started = True
            self._next_page = str(self._first_ms) if self._filter.ids is None else None
        if not self._ids and self._next_page is not None:
            last, page = yield page_command(self._keys, self._next_page, self._last_ms)
            self._next_page = f"({last.decode()}" if last else None
            self._ids.extend(page)
        ids = [self._ids.popleft() for _ in range(min(LETTERS_PER_CALL, len(self._ids)))]
        if not ids:
            return []
        stored = yield letters_command(self._keys, ids)
        return list(self._matching(ids, stored))

    def _matching(
        self, ids: Sequence[bytes | str], stored: Sequence[tuple[bytes | None, bytes | None]]
    ) -> Iterator[DeadLetter]:
        for raw_id, (died_ms, line) in zip(ids, stored, strict=True):
            letter_id = raw_id if isinstance(raw_id, str) else raw_id.decode(errors="replace")
            if died_ms is None:
                if self._filter.ids is not None:
                    self.missing.append(letter_id)
                continue
            letter = decode_letter(letter_id, line or b"", decode_unix_ms(died_ms))
            if self._first_ms <= letter.died_ms <= self._last_ms and self._filter.matches(letter):
                yield letter


class MessageCursor:
    """The letters of another cursor, with their messages."""

    def __init__(self, keys: Keys, cursor: DeadLetterCursor) -> None:
        self._keys, self._cursor = keys, cursor
        self._unread: deque[DeadLetter] = deque()

    @property
    def exhausted(self) -> bool:
        """True when there are no more letters."""
        return self._cursor.exhausted and not self._unread

    def next(self) -> Operation[list[DeadLetterWithMessage]]:
        """Read the next letters. The list may be empty before the cursor is exhausted."""
        if not self._unread:
            self._unread.extend((yield from self._cursor.next()))
        letters = [self._unread.popleft() for _ in range(min(LETTERS_PER_CALL, len(self._unread)))]
        if not letters:
            return []
        _, with_messages = yield from read_letters(self._keys, [letter.id for letter in letters])
        self._unread.extendleft(reversed(letters[len(with_messages) :]))
        return [letter for letter in with_messages if letter is not None]


def read_letters(keys: Keys, ids: Sequence[str]) -> Operation[tuple[int, list[DeadLetterWithMessage | None]]]:
    """Read the server's unix milliseconds, and the first of these letters, at least one.

    The list is shorter than `ids` where the messages are large; it has None for an id without a letter.
    """
    now_ms, *stored = yield letters_with_messages_command(keys, ids)
    letters: list[DeadLetterWithMessage | None] = []
    for letter_id, (died_ms, line, message) in zip(ids, stored, strict=False):
        if died_ms is None:
            letters.append(None)
        else:
            letter = decode_letter(letter_id, line or b"", decode_unix_ms(died_ms))
            letters.append(attach_message(letter, message or b""))
    return int(now_ms), letters
