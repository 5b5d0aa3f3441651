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


def headrace_table(results: dict[str, Any]) -> Table:
    """Build the table of Headrace, with a row for each scenario."""
    rows = [_HEAD]
    for played in played_with(results, "headrace"):
        verdict = played["verdict"]
        counts = [verdict[name] for name in ("confirmed", "succeeded", "dead", "cancelled", "expired")]
        lost = verdict["lost"] + verdict["stuck"]
        rows.append(
            [
                str(played["number"]),
                played["title"],
                *(f"{count:,}" for count in (*counts, lost, verdict["twice"], verdict["ran_again"])),
                _recovery(verdict["recovery"]),
                f"{max(verdict['resumed']):.1f}" if verdict["resumed"] else "",
                "no" if verdict["broken"] else "yes",
            ]
        )
    return rows


def comparison_table(results: dict[str, Any]) -> Table:
    """Build the table of scenarios that ran with both systems."""
    rows = [["", "scenario", "", "confirmed", "lost", "no end in sight", "published twice", "ran again", "noted"]]
    own = {played["number"]: played for played in played_with(results, "headrace")}
    for control in played_with(results, "celery"):
        for played, title in ((own.get(control["number"]), "Headrace"), (control, "stock Celery")):
            if played is None:
                continue
            verdict = played["verdict"]
            counts = [verdict[name] for name in ("confirmed", "lost", "stuck", "twice", "ran_again")]
            formatted = [f"{count:,}" for count in counts]
            rows.append(
                [
                    str(played["number"]),
                    played["title"],
                    f"{title}, {played['times']} x",
                    *formatted,
                    "; ".join(played["notes"]),
                ]
            )
    return rows


def description_table(results: dict[str, Any]) -> Table:
    """Build the table of scenarios with their faults and notes."""
    rows = [["", "fault", "times", "noted"]]
    for played in played_with(results, "headrace"):
        rows.append([str(played["number"]), played["about"], str(played["times"]), "; ".join(played["notes"])])
    return rows


def played_with(results: dict[str, Any], system: str) -> list[dict[str, Any]]:
    """Return the scenarios played with a system, by number."""
    played = [scenario for scenario in results["played"] if scenario["system"] == system]
    return sorted(played, key=lambda scenario: scenario["number"])


def _recovery(values: Sequence[float]) -> str:
    if not values:
        return ""
    return " / ".join(f"{percentile(values, percent):.1f}" for percent in (50, 99, 100))


def broken(results: dict[str, Any]) -> list[str]:
    """List the broken promises of Headrace, a line each."""
    lines = [
        f"{played['number']} {played['title']}: {words}"
        for played in played_with(results, "headrace")
        for words in played["verdict"]["broken"]
    ]
    return lines + [f"{played['number']} {played['title']}: {played['reason']}" for played in results["failed"]]


def left_out(results: dict[str, Any]) -> list[str]:
    """List the scenarios that were left out, a line each."""
    return [f"{played['number']} {played['title']}: {played['reason']}" for played in results["left_out"]]


def machine(results: dict[str, Any]) -> str:
    """Describe the machine and the run in a sentence."""
    host = results["machine"]
    return (
        f"Played on {results['date']} at commit {results['commit']}, in {results['minutes']:.0f} minutes: "
        f"{host['processor']}, {host['cores']} cores, {host['memory_gb']:.0f} GB, {host['system']}; "
        f"Redis {results['redis']}, "
        f"celery {results['celery']}; seed {results['seed']}."
    )


def terminal(results: dict[str, Any]) -> str:
    """Format all results as plain text."""
    parts = [machine(results), as_text(headrace_table(results))]
    if len(table := comparison_table(results)) > 1:
        parts.append(as_text(table))
    for title, lines in (("left out", left_out(results)), ("BROKEN", broken(results))):
        if lines:
            parts.append("\n".join([f"{title}:", *(f"  {line}" for line in lines)]))
    return "\n\n".join(parts)


def markdown(results: dict[str, Any]) -> str:
    """Format all results as Markdown for the documentation."""
    parts = [
        machine(results),
        "### Headrace",
        as_markdown(headrace_table(results)),
        "### Stock Celery beside it",
        as_markdown(comparison_table(results)),
        "### Faults",
        as_markdown(description_table(results)),
    ]
    for title, lines in (("Left out", left_out(results)), ("Broken", broken(results))):
        if lines:
            parts += [f"### {title}", "\n".join(f"- {line}" for line in lines)]
    return "\n\n".join(parts)


def write_into(page: Path, results: dict[str, Any]) -> None:
    """Put the results between the marks of a page."""
    replace_between(page, _BEGIN, _END, markdown(results))
