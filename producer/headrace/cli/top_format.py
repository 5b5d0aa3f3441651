"""How what goes on looks on a terminal, also on a narrow one: the least needed columns give way first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import click
import msgspec

from headrace.cli.options import printable
from headrace.monitor.overview import Overview
from headrace.text import format_duration

#: Failures that are shown, the most frequent first.
_TROUBLES = 8


class Column(msgspec.Struct, frozen=True):
    """A column of a table: its title, its cells, and how soon it gives way, 0 never."""

    title: str
    cells: list[str]
    gives_way: int = 0
    right: bool = True


def page(seen: Overview, where: str, *, columns: int) -> list[str]:
    """What is seen, as lines no longer than so many columns."""
    at = datetime.fromtimestamp(seen.unix_seconds, UTC).strftime("%H:%M:%S UTC")
    lines = [_cut(f"headrace top  {at}  {where}", columns), *_wrapped(_sums(seen), columns), ""]
    lines += _table(_queues(seen), columns, "no model has a queue yet: a worker that serves one publishes it")
    lines.append("")
    nobody = "not to be told: this user may not listen to events" if seen.models is None else "no worker is heard"
    lines += _table(_workers(seen), columns, f"workers: {nobody}")
    if seen.errors:
        lines.append("")
        lines += [click.style(line, fg="red") if at else line for at, line in enumerate(_failed(seen, columns))]
    return lines


def away(why: str, columns: int) -> list[str]:
    """The page while Redis is away."""
    return ["headrace top", "", click.style(_cut(printable(why), columns), fg="red")]


def _sums(seen: Overview) -> list[str]:
    waiting = sum(one.waiting for one in seen.queues)
    leased = sum(one.leased for one in seen.queues)
    delayed = sum(one.delayed for one in seen.queues)
    parts = []
    if seen.models is not None:
        parts.append(f"{_rate(sum(one.succeeded_per_second for one in seen.models))} jobs/s")
        parts.append(f"{_rate(sum(one.failed_per_second for one in seen.models))} failed/s")
    parts += [f"{waiting:,} waiting", f"{leased:,} leased", f"{delayed:,} delayed"]
    if seen.dead_letters is not None:
        parts.append(f"{seen.dead_letters:,} dead letter{'' if seen.dead_letters == 1 else 's'}")
    return parts


def _wrapped(parts: Sequence[str], width: int) -> list[str]:
    """Parts on as few lines as they fit on."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + 2 + len(part) <= width:
            lines[-1] += f"  {part}"
        else:
            lines.append(_cut(part, width))
    return lines


def _queues(seen: Overview) -> list[Column]:
    doing = {one.model: one for one in seen.models or ()}
    queues = sorted(seen.queues, key=lambda one: (-one.waiting - one.leased, one.model))
    active = [doing.get(one.model) for one in queues]
    waits = [seen.oldest_wait_seconds.get(one.model) for one in queues]
    return [
        Column("MODEL", [printable(one.model) for one in queues], right=False),
        Column("WAITING", [f"{one.waiting:,}" for one in queues]),
        Column("OLDEST", ["-" if wait is None else format_duration(1000 * wait) for wait in waits], 2),
        Column("LEASED", [f"{one.leased:,}" for one in queues], 3),
        Column("DELAYED", [f"{one.delayed:,}" for one in queues], 6),
        Column("AGAIN", [f"{one.isolated:,}" for one in queues], 8),
        Column("JOBS/S", [_rate(one.succeeded_per_second) if one else "-" for one in active]),
        Column("FAILED/S", [_rate(one.failed_per_second) if one else "-" for one in active], 4),
        Column("RETRIED/S", [_rate(one.retried_per_second) if one else "-" for one in active], 7),
        Column("P50", [_time(one.p50_ms) if one else "-" for one in active], 5),
        Column("P95", [_time(one.p95_ms) if one else "-" for one in active], 1),
    ]


def _workers(seen: Overview) -> list[Column]:
    workers = seen.workers
    return [
        Column("WORKER", [printable(one.worker) for one in workers], right=False),
        Column("STATE", ["up" if one.alive else "GONE" for one in workers], right=False),
        Column("CLAIMS", [str(one.active_claims) for one in workers], 1),
        Column("JOBS/S", [_rate(one.jobs_per_second) for one in workers]),
        Column("LOAD", ["-" if one.load is None else f"{one.load:.1f}" for one in workers], 2),
        Column(
            "SEEN", [f"{format_duration(1000 * max(0.0, one.heartbeat_age_seconds))} ago" for one in workers], 3
        ),
    ]


def _failed(seen: Overview, columns: int) -> list[str]:
    troubles = seen.errors[:_TROUBLES]
    table = [
        Column("FAILED", [f"{one.count:,}" for one in troubles]),
        Column("MODEL", [printable(one.model) or "-" for one in troubles], right=False),
        Column("ERROR", [printable(one.error) for one in troubles], right=False),
    ]
    return _table(table, columns, "")


def _table(columns: Sequence[Column], width: int, empty: str) -> list[str]:
    """A table of the columns there is room for."""
    if not columns[0].cells:
        return [_cut(empty, width)]
    shown = list(columns)
    while _width(shown) > width and any(one.gives_way for one in shown):
        shown.remove(max(shown, key=lambda one: one.gives_way))
    widths = [max(len(cell) for cell in (one.title, *one.cells)) for one in shown]
    lines = []
    for cells in zip(*((one.title, *one.cells) for one in shown), strict=True):
        parts = (
            cell.rjust(wide) if one.right else cell.ljust(wide)
            for cell, wide, one in zip(cells, widths, shown, strict=True)
        )
        lines.append(_cut("  ".join(parts).rstrip(), width))
    return [click.style(lines[0], bold=True), *lines[1:]]


def _width(columns: Sequence[Column]) -> int:
    return sum(max(len(cell) for cell in (one.title, *one.cells)) for one in columns) + 2 * (len(columns) - 1)


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else line[: max(0, width - 1)] + "…"


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 or rate == 0 else f"{rate:.1f}"


def _time(ms: float | None) -> str:
    return "-" if ms is None else format_duration(ms)
