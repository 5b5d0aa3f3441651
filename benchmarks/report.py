"""Results as tables: on the terminal, and in docs/benchmarks.md, where no number is typed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.models import TITLES
from benchmarks.tables import Table, aligned, piped, put_between
from benchmarks.targets import judged

_BEGIN, _END = "<!-- from here to the end mark: written by `make bench` -->", "<!-- the end of what is written -->"


def throughput(found: dict[str, Any]) -> Table:
    """Jobs a second of every peer, and of the in-process limit."""
    rows = [["", *(f"{title}, jobs/s" for title in TITLES.values()), "x Celery tuned", "x Celery tuned, forest"]]
    base = _named(found, "celery-tuned") or _named(found, "celery")
    for row in _ranked(found):
        rates = row["jobs_per_second"]
        ratios = [
            f"{rates[model] / base['jobs_per_second'][model]:.1f}" if base else ""
            for model in ("logistic", "forest")
        ]
        rows.append([row["title"], *(f"{rates[model]:,.0f}" for model in TITLES), *ratios])
    limit = found["in_process"]
    for title, key in (
        ("limit: one process, a row a call", "rows_per_second"),
        ("limit: one process, 64 rows a call", "rows_per_second_of_64"),
    ):
        rows.append([title, *(f"{limit[model][key]:,.0f}" for model in TITLES), "", ""])
    return rows


def others(found: dict[str, Any]) -> Table:
    """Submitting, idle round trips, and Redis's CPU of every peer."""
    rows = [["", "submit, jobs/s", "many, jobs/s", "idle p50, ms", "idle p99, ms", "Redis CPU, µs a job"]]
    for row in _ranked(found):
        submits, trip = row["submits_per_second"], row["round_trip_ms"]
        rows.append(
            [
                row["title"],
                f"{submits['one']:,.0f}",
                f"{submits['many']:,.0f}",
                f"{trip['p50']:.1f}",
                f"{trip['p99']:.1f}",
                f"{row['redis_cpu_us']['logistic']:,.0f}",
            ]
        )
    limit = found["in_process"]
    rows.append(["limit: predict in process", "", "", f"{limit['logistic']['p50_ms']:.1f}", "", ""])
    if trip := found.get("fast_trip"):
        rows.append(["the forest: Headrace, fast runtime", "", "", f"{trip['p50']:.1f}", f"{trip['p99']:.1f}", ""])
        rows.append(["the forest: predict in process", "", "", f"{limit['forest']['p50_ms']:.1f}", "", ""])
    return rows


def durable(found: dict[str, Any]) -> Table:
    """The same with every write on disk before it is confirmed."""
    rows = [["", "jobs/s, logistic regression", "submit, jobs/s", "many, jobs/s", "idle p50, ms", "idle p99, ms"]]
    for row in found.get("durable", []):
        submits, trip = row["submits_per_second"], row["round_trip_ms"]
        rows.append(
            [
                row["title"],
                f"{row['jobs_per_second']['logistic']:,.0f}",
                f"{submits['one']:,.0f}",
                f"{submits['many']:,.0f}",
                f"{trip['p50']:.1f}",
                f"{trip['p99']:.1f}",
            ]
        )
    return rows


def targets(found: dict[str, Any]) -> Table:
    """What was asked for beside what was measured."""
    words = {True: "yes", False: "no", None: ""}
    rows = [["what", "asked for", "measured", "met"]]
    return rows + [[row["what"], row["asked"], row["shown"], words[row["good"]]] for row in judged(found)]


def depths(found: dict[str, Any]) -> Table:
    """Deep queues."""
    rows = [["jobs waiting", "jobs/s", "Redis memory, bytes a job", "of it the message"]]
    return rows + [
        [f"{at['depth']:,}", f"{at['jobs_per_second']:,.0f}", f"{at['memory']:,.0f}", f"{at['message']:,.0f}"]
        for at in found.get("depth", [])
    ]


def versions(found: dict[str, Any]) -> Table:
    """Versions and settings of every peer."""
    rows = [["", "versions", "Python", "settings"]]
    for row in found["peers"]:
        told = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
        rows.append([row["title"], told, row["python"], row["settings"]])
    return rows


def _ranked(found: dict[str, Any]) -> list[dict[str, Any]]:
    return sorted(found["peers"], key=lambda row: -row["jobs_per_second"]["logistic"])


def _named(found: dict[str, Any], name: str) -> dict[str, Any] | None:
    return next((row for row in found["peers"] if row["name"] == name), None)


def left_out(found: dict[str, Any]) -> list[str]:
    """A line for each peer that has no numbers."""
    return [f"{one['title']}: {one['reason']}" for one in found["left_out"]]


def machine(found: dict[str, Any]) -> str:
    """Where it ran, in a paragraph."""
    host, kept, sizes = found["machine"], found["redis"], found["sizes"]
    return (
        f"Measured on {found['date']} at commit {found['commit']}: {host['processor']}, {host['cores']} cores, "
        f"{host['memory_gb']:.0f} GB, {host['system']}, load before the run {host['load']:.1f}; "
        f"scikit-learn {found['scikit_learn']}; Redis {kept['version']}, the same server for all, "
        f"appendonly {kept['appendonly']}, appendfsync {kept['appendfsync']}; "
        f"{found['processes']} worker processes each; {sizes['rounds']} rounds, about {sizes['seconds']:g} s "
        "a run."
    )


def terminal(found: dict[str, Any]) -> str:
    """All of it as plain text."""
    parts = [machine(found)]
    tables = (throughput(found), others(found), durable(found), depths(found), targets(found))
    parts += [aligned(table) for table in tables if len(table) > 1]
    if told := left_out(found):
        parts.append("left out:\n" + "\n".join(f"  {line}" for line in told))
    return "\n\n".join(parts)


def markdown(found: dict[str, Any], chart: str) -> str:
    """All of it as the documentation shows it."""
    parts = [
        machine(found),
        f"![Jobs a second of Headrace and its peers]({chart})",
        "### Jobs a second, end to end",
        piped(throughput(found)),
        "### Submitting, idle round trips, Redis",
        piped(others(found)),
        "### Every write on disk before it is confirmed (`appendfsync always`)",
        piped(durable(found)),
        "### Deep queues",
        piped(depths(found)),
        "### Asked for, and measured",
        piped(targets(found)),
        "### Versions and settings",
        piped(versions(found)),
    ]
    if told := left_out(found):
        parts += ["### Left out", "\n".join(f"- {line}" for line in told)]
    return "\n\n".join(parts)


def write_into(page: Path, found: dict[str, Any], chart: str) -> None:
    """Put the results between the marks of a page."""
    put_between(page, _BEGIN, _END, markdown(found, chart))
