"""The pages of dead letters: a list with replay and purge, and one dead letter with its history."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import get_args
from urllib.parse import urlencode

import msgspec

from headrace.clock import decode_unix_ms
from headrace.connection.commands import Command, Operation, Pipeline
from headrace.connection.server_time import READ_SERVER_TIME, decode_server_time
from headrace.dead_letters.filter import CheckedFilter, DeadLetterFilter, parse_filter
from headrace.errors import InvalidInput, UnknownLetter
from headrace.wire.dead_letter import DeadLetter, decode_letter
from headrace.wire.keys import Keys
from headrace.wire.outcome import Reason
from headrace_worker.dashboard.page import Page, log

#: Dead letters on a page, which is also the most that one click replays or purges.
PAGE_SIZE = 50
#: Dead letters that are read for one page: a filter may match few of many.
READ_LIMIT = 5_000
_CHUNK = 500
#: The periods of the time filter: seconds -> title.
PERIODS = {900: "15 minutes", 3600: "hour", 86_400: "day", 604_800: "week"}


def read_conditions(page: Page) -> DeadLetterFilter:
    """Return the filter in a page's query. With `exact`, an empty text is a condition too."""
    is_exact = bool(page.query_text("exact"))
    names = ("model", "reason", "error", "failed_version", "message")
    texts = {name: page.get_query_argument(name, None, strip=False) for name in names}
    if not is_exact:
        texts = {name: (text or "").strip() or None for name, text in texts.items()}
    return DeadLetterFilter(
        model=texts["model"],
        reason=texts["reason"],
        error=texts["error"],
        failed_version=texts["failed_version"],
        message=texts["message"],
        newer_than=page.query_number("within") or None,
    )


def encode_conditions(conditions: DeadLetterFilter) -> str:
    """Return the query of a filter that `read_conditions` reads."""
    texts = {name: value for name, value in conditions.items() if value is not None and name != "newer_than"}
    exact = {"exact": "1"} if "" in texts.values() else {}
    within = {"within": conditions["newer_than"]} if conditions.get("newer_than") else {}
    return urlencode({**texts, **exact, **within})


class DeadLetterPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the list."""

    dead_letters: tuple[DeadLetter, ...]
    #: Position at which the next page begins, counted from the newest dead letter; None for the last page.
    next: int | None


def read_page(keys: Keys, letter_filter: CheckedFilter, start: int) -> Operation[DeadLetterPage]:
    """Read a page of the dead letters that match, from position `start` on, 0 being the newest."""
    matching: list[DeadLetter] = []
    first_ms, last_ms = letter_filter.time_range(decode_server_time((yield READ_SERVER_TIME)))
    position = start
    while position < start + READ_LIMIT:
        scored = yield Command(("ZREVRANGE", keys.dead_times, position, position + _CHUNK - 1, "WITHSCORES"))
        names = [bytes(name) for name in scored[::2]]
        if not names:
            return DeadLetterPage(dead_letters=tuple(matching), next=None)
        lines = yield Command(("HMGET", keys.dead, *names))
        for name, died_ms, line in zip(names, scored[1::2], lines, strict=True):
            position += 1
            letter = decode_letter(name.decode(errors="replace"), line or b"", decode_unix_ms(died_ms))
            if letter.died_ms < first_ms:  # as are all that follow
                return DeadLetterPage(dead_letters=tuple(matching), next=None)
            if letter.died_ms <= last_ms and letter_filter.matches(letter):
                matching.append(letter)
            if len(matching) == PAGE_SIZE:
                total = yield Command(("ZCARD", keys.dead_times))
                return DeadLetterPage(dead_letters=tuple(matching), next=position if position < total else None)
        if len(names) < _CHUNK:
            return DeadLetterPage(dead_letters=tuple(matching), next=None)
    return DeadLetterPage(dead_letters=tuple(matching), next=position)


def read_dead_letters(keys: Keys, names: Sequence[str]) -> Operation[list[DeadLetter]]:
    """Read the dead letters with these ids, without their messages. Those that do not exist are left out."""
    if not names:
        return []
    times = yield Pipeline(tuple(("ZSCORE", keys.dead_times, name) for name in names))
    for reply in times:
        if isinstance(reply, Exception):
            raise reply
    lines = yield Command(("HMGET", keys.dead, *names))
    return [
        decode_letter(name, line or b"", decode_unix_ms(died_ms))
        for name, died_ms, line in zip(names, times, lines, strict=True)
        if died_ms is not None
    ]


class DeadLetterList(Page):
    """The list of dead letters, with replay and purge of selected ones."""

    async def get(self) -> None:
        """Show a page of the list."""
        conditions = read_conditions(self)
        keys, start = self.application.session.keys, self.query_number("start")
        content = await self.run_operation(read_page(keys, parse_filter(conditions), start))
        self.answer(
            "dead_letters.html",
            content,
            conditions=conditions,
            query=encode_conditions(conditions),
            periods=PERIODS,
            count=await self.run_operation(self.application.dead_letters.count()),
            reasons=get_args(Reason),
            start=start,
            result={name: self.query_number(name) for name in ("replayed", "purged", "unchanged", "missing")},
            show_result=bool(self.query_text("show_result")),
        )

    async def post(self) -> None:
        """Replay or purge the selected dead letters. Raises InvalidInput, UnknownModel."""
        self.require_actions()
        ids = [name for name in self.get_body_arguments("id")[:PAGE_SIZE] if name]
        action, version = self.get_body_argument("action", ""), self.get_body_argument("version", "") or None
        if action not in {"replay", "purge"}:
            raise InvalidInput("`action` must be replay or purge")
        if not ids:
            raise InvalidInput("select dead letters first")
        operations, now = self.application.dead_letters, datetime.now(UTC)
        bulk = (
            operations.replay({"ids": ids}, now, version=version, rate=None, dry_run=False, every=False)
            if action == "replay"
            else operations.purge({"ids": ids}, dry_run=False, every=False)
        )
        result = await self.run_to_the_end(bulk)
        log.info("%s of %d dead letters by %s: %s", action, len(ids), self.user, result)
        past_tense = "replayed" if action == "replay" else "purged"
        unchanged, missing = result.id_in_use + result.malformed, result.already_handled + len(result.missing)
        counts = {past_tense: result.done, "unchanged": unchanged, "missing": missing, "show_result": 1}
        query = "&".join(filter(None, (encode_conditions(read_conditions(self)), urlencode(counts))))
        self.redirect(f"{self.reverse_url('dead_letters')}?{query}", status=303)


class DeadLetterDetail(Page):
    """One dead letter with its history, without its message."""

    async def get(self, name: str) -> None:
        """Show the dead letter of the job `name`. Raises UnknownLetter."""
        letters = await self.run_operation(read_dead_letters(self.application.session.keys, [name]))
        if not letters:
            raise UnknownLetter(f"there is no dead letter {name}; it may have been replayed, purged or dropped")
        self.answer("dead_letter.html", letters[0])
