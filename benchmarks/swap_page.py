"""What swaps cost, as tables, beside what was asked for; in docs/swapping.md no number is typed by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.tables import Table, piped, put_between

_BEGIN, _END = (
    "<!-- from here to the end mark: written by `make bench-swap` -->",
    "<!-- the end of what is written -->",
)


class _Target(NamedTuple):
    what: str
    asked: str
    measured: Callable[[dict[str, Any]], float]
    good: Callable[[float], bool]
    shown: str


_TARGETS = (
    _Target("jobs that failed", "none", lambda found: len(found["failures"]), lambda x: x == 0, "{:.0f}"),
    _Target(
        "p99 of jobs while a version is swapped, of the p99 before",
        "at most 2 x",
        lambda found: found["p99_of_before"],
        lambda x: x <= 2,
        "{:.1f} x",
    ),
    _Target(
        "from `headrace models add` to the first answer of what it added",
        "less than 5 s",
        lambda found: found["seconds_by_command"],
        lambda x: x < 5,
        "{:.1f} s",
    ),
    _Target(
        "memory (PSS) of a worker with the large model and several pool processes, of that with one",
        "at most 1.3 x",
        lambda found: found["memory"]["several"] / found["memory"]["one"],
        lambda x: x <= 1.3,
        "{:.2f} x",
    ),
    _Target(
        "the same after a swap",
        "at most 1.3 x",
        lambda found: found["memory"]["after"] / found["memory"]["one"],
        lambda x: x <= 1.3,
        "{:.2f} x",
    ),
)


def targets(found: dict[str, Any]) -> Table:
    """What was asked for beside what was measured."""
    rows = [["what", "asked for", "measured", "met"]]
    for target in _TARGETS:
        value = target.measured(found)
        rows.append([target.what, target.asked, target.shown.format(value), "yes" if target.good(value) else "no"])
    return rows


def swaps(found: dict[str, Any]) -> Table:
    """Every swap under load."""
    rows = [
        [
            "swap",
            "p50 before, ms",
            "p99 before",
            "p50 during",
            "p99 during",
            "jobs during",
            "of them over 2 x the p99 before",
            "swapped in, s",
        ]
    ]
    for number, swap in enumerate(found["every_swap"], 1):
        before, during = swap["ms_before"], swap["ms_during"]
        rows.append(
            [
                str(number),
                *(f"{part[name]:.1f}" for part in (before, during) for name in ("p50", "p99")),
                f"{during['jobs']:,}",
                f"{swap['over_twice_p99_before']:.1%}",
                f"{swap['seconds_to_only_new_answers']:.1f}",
            ]
        )
    return rows


def memory(found: dict[str, Any]) -> Table:
    """Megabytes of a worker, in whole."""
    sizes, of = found["sizes"], found["memory"]
    return [
        ["worker", "PSS, MB"],
        ["one pool process", f"{of['one']:,.0f}"],
        [f"{sizes['pool']} pool processes", f"{of['several']:,.0f}"],
        [f"{sizes['pool']} pool processes, after a swap", f"{of['after']:,.0f}"],
    ]


def write_into(page: Path, found: dict[str, Any]) -> None:
    """Put the results between the marks of a page."""
    host, sizes = found["machine"], found["sizes"]
    told = (
        f"Measured on {found['date']} at commit {found['commit']}: {host['processor']}, {host['cores']} cores, "
        f"{host['memory_gb']:.0f} GB, {host['system']}, load before the run {host['load']:.1f}; "
        f"{sizes['clients']} clients, {1000 * sizes['pause']:g} ms between two jobs of each, "
        f"{found['jobs']:,} jobs in all; a model of {sizes['megabytes']} MB, {sizes['processes']} pool processes; "
        f"for memory a model of {sizes['large_megabytes']} MB."
    )
    tables = (targets(found), swaps(found), memory(found))
    put_between(page, _BEGIN, _END, "\n\n".join([told, *map(piped, tables)]))
