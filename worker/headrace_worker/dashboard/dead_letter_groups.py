"""The page of dead letters by cause, and the pages that replay all letters of a cause or of a filter."""

from __future__ import annotations

from typing import Any, get_args
from urllib.parse import urlencode

import msgspec

from headrace.connection.commands import Operation
from headrace.dead_letters.groups import DeadLetterGroup, DeadLetterGroups
from headrace.dead_letters.search import DeadLetterCursor
from headrace.errors import InvalidInput
from headrace.text import format_duration
from headrace.wire.outcome import Reason
from headrace_worker.dashboard.dead_letter_pages import PERIODS, read_conditions
from headrace_worker.dashboard.page import Page
from headrace_worker.dashboard.replays import ReplayRequest

#: Groups on the page: the largest.
_MAX_GROUPS = 200
#: Dead letters that are read for a page of groups, oldest first, so that it ends.
_MAX_LETTERS = 200_000


class GroupPage(msgspec.Struct, frozen=True, kw_only=True):
    """The largest groups of dead letters that match a filter."""

    groups: tuple[DeadLetterGroup, ...]
    #: The number of letters in all groups, and of all groups.
    letters: int
    group_count: int
    #: False if there were too many letters to read all.
    is_complete: bool


def read_groups(cursor: DeadLetterCursor) -> Operation[GroupPage]:
    """Read the groups of the letters of a cursor, as `headrace dead groups` does."""
    groups, count = DeadLetterGroups(), 0
    while not cursor.exhausted and count < _MAX_LETTERS:
        letters = yield from cursor.next()
        groups.add(letters)
        count += len(letters)
    largest = groups.largest()
    return GroupPage(
        groups=largest[:_MAX_GROUPS], letters=count, group_count=len(largest), is_complete=cursor.exhausted
    )


def query_of_group(group: DeadLetterGroup, conditions: dict[str, Any]) -> str:
    """Return the query that selects the letters of a group, within the period of the page."""
    query = {
        "model": group.model or "",
        "failed_version": group.version or "",
        "reason": group.reason,
        "error": group.error,
        "message": group.message,
    }
    # `exact` makes an empty text a condition: no model, no version, no message.
    return urlencode({**query, "exact": "1", "within": conditions.get("newer_than") or ""})


class DeadLetterGroupList(Page):
    """Dead letters by cause."""

    async def get(self) -> None:
        """Show the groups. Raises InvalidInput."""
        conditions = read_conditions(self)
        content = await self.run_operation(read_groups(self.application.dead_letters.search(conditions)))
        self.answer(
            "dead_letter_groups.html",
            content,
            conditions=conditions,
            reasons=get_args(Reason),
            periods=PERIODS,
            query_of=lambda group: query_of_group(group, dict(conditions)),
        )


class ReplayCount(msgspec.Struct, frozen=True, kw_only=True):
    """The number of letters that match a filter, by group."""

    letters: int
    group_count: int
    #: False if there were too many letters to count all.
    is_complete: bool


class ReplayForm(Page):
    """The page that asks how to replay all letters of a filter, and starts the replay."""

    async def get(self) -> None:
        """Show the filter, the number of its letters, and the form. Raises InvalidInput."""
        conditions = read_conditions(self)
        groups = await self.run_operation(read_groups(self.application.dead_letters.search(conditions)))
        content = ReplayCount(
            letters=groups.letters, group_count=groups.group_count, is_complete=groups.is_complete
        )
        query = self.request.query
        self.answer("replay_form.html", content, conditions=describe_conditions(dict(conditions)), query=query)

    async def post(self) -> None:
        """Start the replay. Raises InvalidInput."""
        self.require_actions()
        conditions = {name: value for name, value in read_conditions(self).items() if value is not None}
        if not conditions:
            raise InvalidInput("set a filter first: a model, a reason, an error or a period")
        request = ReplayRequest(
            conditions=conditions,  # type: ignore[arg-type]  # texts and seconds
            version=self.get_body_argument("version", "") or None,
            rate=_parse_rate(self.get_body_argument("rate", "")),
            dry_run=self.get_body_argument("action", "") != "replay",
            by=self.user,
        )
        progress = await self.in_thread(lambda: self.application.replays.start(request))
        self.redirect(self.reverse_url("replay", progress.id), status=303)


def _parse_rate(text: str) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        raise InvalidInput("`rate` is a number of letters a second above 0") from None


def describe_conditions(conditions: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the names and the values of a filter as a person reads them."""
    return [
        ("died within", format_duration(1000 * value))
        if name == "newer_than"
        else (name.replace("_", " "), str(value) or "none")
        for name, value in conditions.items()
        if value is not None
    ]


class ReplayDetail(Page):
    """A replay that runs or has ended, with its counts."""

    def get(self, number: str) -> None:
        """Show the replay. Raises UnknownLetter."""
        progress = self.application.replays.read(int(number[:9]))
        self.answer(
            "replay.html", progress, conditions=describe_conditions(progress.request.conditions), refresh_ms=1000
        )

    def post(self, number: str) -> None:
        """Stop the replay. Raises UnknownLetter."""
        self.require_actions()
        self.application.replays.stop(int(number[:9]))
        self.redirect(self.reverse_url("replay", number), status=303)
