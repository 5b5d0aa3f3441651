"""Verdicts as tables: on the terminal, and in docs/reliability.md, where no number is typed by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.tables import Table, as_markdown, as_text, replace_between
from tests.chaos.verdict import percentile

_BEGIN, _END = "<!-- from here to the end mark: written by `make chaos` -->", "<!-- the end of what is written -->"

_HEAD = ["", "scenario", "confirmed", "success", "dead", "cancelled", "expired", "lost", "twice", "ran again"]
_HEAD += ["recovery p50 / p99 / max, s", "goes on after, s", "held"]


def ours(found: dict[str, Any]) -> Table:
    """Headrace, a row a scenario."""
    rows = [_HEAD]
    for one in _of(found, "headrace"):
        verdict = one["verdict"]
        counts = [verdict[name] for name in ("confirmed", "succeeded", "dead", "cancelled", "expired")]
        lost = verdict["lost"] + verdict["stuck"]
        rows.append(
            [
                str(one["number"]),
                one["title"],
                *(f"{count:,}" for count in (*counts, lost, verdict["twice"], verdict["ran_again"])),
                _recovery(verdict["recovery"]),
                f"{max(verdict['resumed']):.1f}" if verdict["resumed"] else "",
                "no" if verdict["broken"] else "yes",
            ]
        )
    return rows


def beside(found: dict[str, Any]) -> Table:
    """Stock Celery beside Headrace, where it was played with both."""
    rows = [["", "scenario", "", "confirmed", "lost", "no end in sight", "published twice", "ran again", "noted"]]
    own = {one["number"]: one for one in _of(found, "headrace")}
    for control in _of(found, "celery"):
        for one, title in ((own.get(control["number"]), "Headrace"), (control, "stock Celery")):
            if one is None:
                continue
            verdict = one["verdict"]
            counts = [verdict[name] for name in ("confirmed", "lost", "stuck", "twice", "ran_again")]
            shown = [f"{count:,}" for count in counts]
            rows.append(
                [str(one["number"]), one["title"], f"{title}, {one['times']} x", *shown, "; ".join(one["notes"])]
            )
    return rows


def what(found: dict[str, Any]) -> Table:
    """What is done in each scenario, and what it noted."""
    rows = [["", "what is done", "times", "noted"]]
    for one in _of(found, "headrace"):
        rows.append([str(one["number"]), one["about"], str(one["times"]), "; ".join(one["notes"])])
    return rows


def _of(found: dict[str, Any], system: str) -> list[dict[str, Any]]:
    return sorted((one for one in found["played"] if one["system"] == system), key=lambda one: one["number"])


def _recovery(values: Sequence[float]) -> str:
    if not values:
        return ""
    return " / ".join(f"{percentile(values, percent):.1f}" for percent in (50, 99, 100))


def broken(found: dict[str, Any]) -> list[str]:
    """A line for each promise that did not hold with Headrace."""
    lines = [
        f"{one['number']} {one['title']}: {words}"
        for one in _of(found, "headrace")
        for words in one["verdict"]["broken"]
    ]
    return lines + [f"{one['number']} {one['title']}: {one['reason']}" for one in found["failed"]]


def left_out(found: dict[str, Any]) -> list[str]:
    """A line for each scenario that was not played."""
    return [f"{one['number']} {one['title']}: {one['reason']}" for one in found["left_out"]]


def machine(found: dict[str, Any]) -> str:
    """Where it ran, in a sentence."""
    host = found["machine"]
    return (
        f"Played on {found['date']} at commit {found['commit']}, in {found['minutes']:.0f} minutes: "
        f"{host['processor']}, {host['cores']} cores, {host['memory_gb']:.0f} GB, {host['system']}; "
        f"Redis {found['redis']}, "
        f"celery {found['celery']}; seed {found['seed']}."
    )


def terminal(found: dict[str, Any]) -> str:
    """All of it as plain text."""
    parts = [machine(found), as_text(ours(found))]
    if len(table := beside(found)) > 1:
        parts.append(as_text(table))
    for title, lines in (("left out", left_out(found)), ("BROKEN", broken(found))):
        if lines:
            parts.append("\n".join([f"{title}:", *(f"  {line}" for line in lines)]))
    return "\n\n".join(parts)


def markdown(found: dict[str, Any]) -> str:
    """All of it as the documentation shows it."""
    parts = [
        machine(found),
        "### Headrace",
        as_markdown(ours(found)),
        "### Stock Celery beside it",
        as_markdown(beside(found)),
        "### What is done",
        as_markdown(what(found)),
    ]
    for title, lines in (("Left out", left_out(found)), ("Broken", broken(found))):
        if lines:
            parts += [f"### {title}", "\n".join(f"- {line}" for line in lines)]
    return "\n\n".join(parts)


def write_into(page: Path, found: dict[str, Any]) -> None:
    """Put the results between the marks of a page."""
    replace_between(page, _BEGIN, _END, markdown(found))
