"""The numbers that the project requires of the gateway, beside the measured ones."""

from __future__ import annotations

from functools import partial
from statistics import median
from typing import Any

from benchmarks.http.comparison import MANY, SINGLE
from benchmarks.http.running import FASTAPI, FIXED, HEADRACE, MLSERVERS
from benchmarks.target import Target

#: Ratios here are near 1.
_Ratio = partial(Target[dict[str, Any]], format="{:.2f} x")


def _ratio(results: dict[str, Any], other: str, model: str, number: str) -> float:
    """Return the gateway's number relative to another server's in the same round, as the median of rounds."""
    ours, theirs = (_turns(results, name) for name in (HEADRACE, other))
    return median(
        mine[model][MANY][number] / its[model][MANY][number] for mine, its in zip(ours, theirs, strict=True)
    )


def _turns(results: dict[str, Any], name: str) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = next(row for row in results["comparison"]["ways"] if row["name"] == name)[
        "turns"
    ]
    return turns


def _mlserver(results: dict[str, Any], model: str, number: str) -> list[float]:
    """Return the ratios to both configurations of MLServer."""
    names = {row["name"] for row in results["comparison"]["ways"]}
    return [_ratio(results, name, model, number) for name in MLSERVERS if name in names]


def _own_share(results: dict[str, Any]) -> float:
    """Return the processor time of the gateway's own process, relative to the fixed answer."""
    ours, fixed = _turns(results, HEADRACE), _turns(results, FIXED)
    return median(
        mine["logistic"][MANY]["parts_us"]["gateway"] / its["logistic"][MANY]["cpu_us"]
        for mine, its in zip(ours, fixed, strict=True)
    )


def _beyond_round_trip(results: dict[str, Any]) -> float:
    """Return the milliseconds that one connection takes beyond the round trip of a client without HTTP."""
    p50 = median(turn["logistic"][SINGLE]["p50_ms"] for turn in _turns(results, HEADRACE))
    return float(p50 - results["client"]["round_trip_ms"])


TARGETS: tuple[Target[dict[str, Any]], ...] = (
    _Ratio(
        "processor time a request, logistic regression, relative to FastAPI with the model in process",
        "at most 0.55 x",
        lambda results: _ratio(results, FASTAPI, "logistic", "cpu_us"),
        lambda value: value <= 0.55,
    ),
    _Ratio(
        "the same, relative to the better configuration of MLServer",
        "at most 0.4 x",
        lambda results: max(_mlserver(results, "logistic", "cpu_us")),
        lambda value: value <= 0.4,
    ),
    Target(
        "requests/s, random forest, relative to FastAPI with the model in process",
        "at least 25 x",
        lambda results: _ratio(results, FASTAPI, "forest", "requests_per_second"),
        lambda value: value >= 25,
    ),
    Target(
        "the same, relative to the better configuration of MLServer",
        "at least 5 x",
        lambda results: min(_mlserver(results, "forest", "requests_per_second")),
        lambda value: value >= 5,
    ),
    Target(
        "one connection, p50 beyond the idle round trip of `Client.predict`",
        "at most 0.6 ms",
        _beyond_round_trip,
        lambda value: value <= 0.6,
        "{:.2f} ms",
    ),
    _Ratio(
        "processor time of the gateway's process, relative to a fixed answer of the same framework",
        "at most 2 x",
        _own_share,
        lambda value: value <= 2,
    ),
    Target(
        "processor time of `AsyncClient.predict`, many in flight",
        "at most 80 µs",
        lambda results: float(results["client"]["cpu_us"]),
        lambda value: value <= 80,
        "{:.0f} µs",
    ),
    _Ratio(
        "p99 of others beside idle event streams",
        "at most 1.2 x",
        lambda results: float(results["slow_clients"]["p99_ratios"]["streams"]),
        lambda value: value <= 1.2,
    ),
    _Ratio(
        "p99 of others beside requests that send a byte a second",
        "at most 1.2 x",
        lambda results: float(results["slow_clients"]["p99_ratios"]["slow_requests"]),
        lambda value: value <= 1.2,
    ),
    _Ratio(
        "rows/s of `:batch`, relative to `headrace batch` of the same file",
        "at least 0.8 x",
        lambda results: _number(results["files"]["ratio"]),
        lambda value: value >= 0.8,
    ),
)


def _number(value: float | None) -> float:
    if value is None:
        raise ValueError("it was left out")
    return value
