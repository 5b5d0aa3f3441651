"""The results as tables, on the terminal and in docs/http-benchmarks.md, whose numbers are all generated."""

from __future__ import annotations

from typing import Any

from benchmarks.generated_page import GeneratedPage
from benchmarks.http.comparison import MANY, SINGLE
from benchmarks.http.files import BATCH, COMMAND
from benchmarks.http.models import TITLES
from benchmarks.http.running import HEADRACE
from benchmarks.http.targets import TARGETS
from benchmarks.tables import Table


def load(results: dict[str, Any], model: str, name: str) -> Table:
    """Return the numbers of each server with a model, under one of the loads."""
    table = [[TITLES[model], "requests/s", "processor time, µs/request", "p50, ms", "p99, ms"]]
    for row in results["comparison"]["ways"]:
        numbers = row["models"][model][name]
        table.append(
            [
                row["title"],
                f"{numbers['requests_per_second']:,.0f}",
                f"{numbers['cpu_us']:,.0f}",
                f"{numbers['p50_ms']:.2f}",
                f"{numbers['p99_ms']:.2f}",
            ]
        )
    return table


def parts(results: dict[str, Any]) -> Table:
    """Return the processor time of each process of Headrace for a request."""
    row = next(row for row in results["comparison"]["ways"] if row["name"] == HEADRACE)
    names = list(row["models"]["logistic"][MANY]["parts_us"])
    table = [["many connections", *(f"{name}, µs" for name in names)]]
    for model, title in TITLES.items():
        shares = row["models"][model][MANY]["parts_us"]
        table.append([title, *(f"{shares[name]:,.0f}" for name in names)])
    return table


def client(results: dict[str, Any]) -> Table:
    """Return what a client without HTTP takes."""
    measured = results["client"]
    return [
        ["without HTTP", "measured"],
        [f"`AsyncClient.predict`, {measured['tasks']} in flight, processor time", f"{measured['cpu_us']:.0f} µs"],
        ["jobs in a call of the enqueue script", f"{measured['jobs_per_call']:.1f}"],
        ["`Client.predict`, idle round trip p50", f"{measured['round_trip_ms']:.2f} ms"],
    ]


def slow_clients(results: dict[str, Any]) -> Table:
    """Return the latencies beside clients that are slow."""
    measured = results["slow_clients"]
    ratios = measured["p99_ratios"]
    table = [["p99 of the load", "measured"], ["alone", f"{measured['alone_p99_ms']:.1f} ms"]]
    for name, title in (("streams", "idle event streams"), ("slow_requests", "requests that drip")):
        text = f"{ratios[name]:.2f} x" if name in ratios else "left out"
        table.append([f"beside {measured[name]:,} {title}", text])
    return table


def files(results: dict[str, Any]) -> Table:
    """Return the rows a second of a CSV file."""
    measured = results["files"]
    table = [[f"CSV of {measured['rows']:,} rows", "rows/s"]]
    for name, title in ((COMMAND, "`headrace batch`"), (BATCH, "`:batch` over HTTP")):
        rate = measured["rows_per_second"].get(name)
        table.append([title, "left out" if rate is None else f"{rate:,.0f}"])
    return table


def settings(results: dict[str, Any]) -> Table:
    """Return the settings of each server."""
    return [["", "settings"], *([row["title"], row["settings"]] for row in results["comparison"]["ways"])]


def _tables(results: dict[str, Any]) -> list[tuple[str, Table]]:
    tables: list[tuple[str, Table]] = []
    if comparison := results.get("comparison"):
        for model, title in TITLES.items():
            for name, connections in (
                (MANY, f"{comparison['connections']} connections"),
                (SINGLE, "one connection"),
            ):
                tables.append((f"{title.capitalize()}, {connections}", load(results, model, name)))
        if any(row["name"] == HEADRACE for row in comparison["ways"]):
            tables.append(("Headrace by process", parts(results)))
    for name, title, table in (
        ("client", "The client", client),
        ("slow_clients", "Slow clients", slow_clients),
        ("files", "Files", files),
    ):
        if name in results:
            tables.append((title, table(results)))
    return [*tables, ("Settings", settings(results))] if "comparison" in results else tables


def _left_out(results: dict[str, Any]) -> list[str]:
    lines = [f"- {row['title']}: {row['reason']}" for row in results.get("comparison", {}).get("left_out", [])]
    for measurement in ("slow_clients", "files"):
        reasons = results.get(measurement, {}).get("left_out", {})
        lines += [f"- {name.replace('_', ' ')}: {reason}" for name, reason in reasons.items()]
    return lines


PAGE = GeneratedPage("http-benchmarks.md", "bench-http", TARGETS, _tables, _left_out)
