"""The results as tables, on the terminal and in docs/bulk-benchmarks.md, whose numbers are all generated."""

from __future__ import annotations

from typing import Any

from benchmarks.bulk.comparison import LIMIT
from benchmarks.bulk.models import MODELS
from benchmarks.bulk.targets import TARGETS
from benchmarks.generated_page import GeneratedPage
from benchmarks.tables import Table


def rates(results: dict[str, Any]) -> Table:
    """Return the rows per second of each way, and its share of the limit."""
    comparison = results["comparison"]
    table = [["", *(f"{name}, rows/s" for name in MODELS), *(f"{name}, of the limit" for name in MODELS)]]
    for row in _ways(results):
        models = row["models"]
        table.append(
            [
                row["title"],
                *(f"{models[name]['rows_per_second']:,.0f}" for name in MODELS),
                *("1" if row["name"] == LIMIT else f"{models[name]['of_limit']:.2f}" for name in MODELS),
            ]
        )
    return [*table, ["rows", *(f"{comparison['rows'][name]:,}" for name in MODELS), *("" for _ in MODELS)]]


def processor_times(results: dict[str, Any]) -> Table:
    """Return the processor time of each way for a row, and the size of its output."""
    table = [["", *(f"{name}, µs/row" for name in MODELS), *(f"{name}, MB written" for name in MODELS)]]
    for row in _ways(results):
        models = row["models"]
        table.append(
            [
                row["title"],
                *(f"{models[name]['cpu_us_per_row']:.1f}" for name in MODELS),
                *(f"{models[name]['megabytes']:.0f}" for name in MODELS),
            ]
        )
    return table


def _ways(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the ways, the quickest with the logistic regression first."""
    ways: list[dict[str, Any]] = results["comparison"]["ways"]
    return sorted(ways, key=lambda row: -row["models"]["logistic"]["rows_per_second"])


def files(results: dict[str, Any]) -> Table:
    """Return the processor time of each way to predict a CSV file."""
    measured = results["files"]
    table = [["CSV to CSV, logistic regression", "processor time, s", "µs/row"]]
    for name, seconds in sorted(measured["cpu_seconds"].items(), key=lambda item: item[1]):
        per_row = 1e6 * seconds / measured["rows"]
        table.append([measured["titles"][name], f"{seconds:.1f}", f"{per_row:.1f}"])
    return table


def online(results: dict[str, Any]) -> Table:
    """Return the latencies of single rows without and with a run."""
    measured = results["online"]
    table = [["single rows", "rows", "p50, ms", "p99, ms", "rows/s of the run"]]
    for title, name in (("on an idle worker", "idle_ms"), ("during a run", "busy_ms")):
        values = measured[name]
        rate = f"{measured['run_rows_per_second']:,.0f}" if name == "busy_ms" else ""
        table.append([title, f"{values['jobs']:,}", f"{values['p50']:.1f}", f"{values['p99']:.1f}", rate])
    return table


def memory(results: dict[str, Any]) -> Table:
    """Return the memory of a worker and a client, and what stays in Redis, by the rows of the table."""
    table = [["rows", "worker with two pool processes, MB", "client, MB", "left in Redis, bytes"]]
    for size in ("small", "large"):
        row = results["memory"][size]
        cells = (f"{row['worker_mb']:.0f}", f"{row['client_mb']:.0f}", f"{row['redis_bytes']:,}")
        table.append([f"{row['rows']:,}", *cells])
    return table


def single_numbers(results: dict[str, Any]) -> Table:
    """Return the numbers that stand for themselves."""
    table = [["", "measured"]]
    if scaling := results.get("scaling"):
        rates = f"{scaling['one']:,.0f} and {scaling['two']:,.0f} rows/s"
        table.append(["one and two pool processes, random forest", rates])
    if submission := results.get("submission"):
        rows = f"{submission['rows']:,} rows in {submission['files']:,} files"
        table += [
            [f"`client.bulk`, {rows}", f"{submission['call_seconds']:.3f} s"],
            ["`headrace bulk submit`, with its start", f"{submission['command_seconds']:.2f} s"],
            [f"until its {submission['chunks']:,} chunks are planned", f"{submission['plan_seconds']:.1f} s"],
            ["Redis memory of the planned run", f"{submission['redis_bytes'] / 1e6:.1f} MB"],
        ]
    return table


def versions(results: dict[str, Any]) -> Table:
    """Return the versions and settings of each way."""
    rows = [["", "versions", "settings"]]
    for row in results["comparison"]["ways"]:
        if "versions" in row:
            joined = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
            rows.append([row["title"], f"Python {row['python']}, {joined}", row["settings"]])
    return rows


_SECTIONS = (
    ("Parquet to Parquet, rows a second", {"comparison"}, rates),
    ("Parquet to Parquet, processor time and size", {"comparison"}, processor_times),
    ("`headrace batch`", {"files"}, files),
    ("Single rows during a run", {"online"}, online),
    ("Memory", {"memory"}, memory),
    ("Scaling and submission", {"scaling", "submission"}, single_numbers),
    ("Versions and settings", {"comparison"}, versions),
)


def _tables(results: dict[str, Any]) -> list[tuple[str, Table]]:
    return [(title, table(results)) for title, names, table in _SECTIONS if names & results.keys()]


def _left_out(results: dict[str, Any]) -> list[str]:
    rows = results.get("comparison", {}).get("left_out", [])
    return [f"- {row['title']}: {row['reason']}" for row in rows]


PAGE = GeneratedPage("bulk-benchmarks.md", "bench-bulk", TARGETS, _tables, _left_out)
