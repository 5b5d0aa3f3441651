"""What was asked for, and what was measured: one row for each number that the project holds itself to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.roster import OURS

#: The variations of Celery: "plain Celery", not "a peer" of the comparison with the best.
_CELERY = ("celery", "celery-tuned")


class Target(NamedTuple):
    """A number that is asked for."""

    what: str
    #: What is asked for, in words.
    asked: str
    #: The number measured; raises KeyError, or is None, where what it is made of was not measured.
    measured: Callable[[Results], float | None]
    good: Callable[[float], bool]
    shown: str = "{:.1f} x"


class Results:
    """Results as `latest.json` holds them, asked by name."""

    def __init__(self, found: dict[str, Any]) -> None:
        self.found = found
        self.peers: dict[str, Any] = {row["name"]: row for row in found["peers"]}

    def rate(self, name: str, model: str) -> float:
        """Jobs a second."""
        return float(self.peers[name]["jobs_per_second"][model])

    def plain(self, model: str) -> float:
        """Celery's jobs a second, the better of its two."""
        return max(self.rate(name, model) for name in _CELERY if name in self.peers)

    def best(self, model: str) -> float:
        """The best peer's jobs a second."""
        return max(row["jobs_per_second"][model] for name, row in self.peers.items() if name not in OURS)

    def trip(self, name: str, which: str) -> float:
        """Milliseconds of an idle round trip."""
        return float(self.peers[name]["round_trip_ms"][which])


def _depths(results: Results) -> float:
    shallow, deep = results.found["depth"]
    return float(deep["jobs_per_second"] / shallow["jobs_per_second"])


def _overhead(results: Results) -> float:
    """Of the deepest queue: what Redis takes for itself counts for nothing there."""
    deepest = results.found["depth"][-1]
    return float(deepest["memory"] - deepest["message"])


def _cost(results: Results, way: str) -> float:
    """Percent of the jobs a second."""
    return 100 * (1 - float(results.found["telling"]["of_off"][way]))


TARGETS = (
    Target(
        "jobs/s, logistic regression, against the best plain Celery",
        "15 x",
        lambda r: r.rate("headrace", "logistic") / r.plain("logistic"),
        lambda x: x >= 15,
    ),
    Target(
        "jobs/s, logistic regression, against the best peer",
        "5 x",
        lambda r: r.rate("headrace", "logistic") / r.best("logistic"),
        lambda x: x >= 5,
    ),
    Target(
        "jobs/s, random forest, against the best peer",
        "30 x",
        lambda r: r.rate("headrace", "forest") / r.best("forest"),
        lambda x: x >= 30,
    ),
    Target(
        "jobs/s, random forest in a fast runtime, against the best peer",
        "45 x",
        lambda r: r.rate("headrace-fast", "forest") / r.best("forest"),
        lambda x: x >= 45,
    ),
    Target(
        "idle round trip p50, random forest in a fast runtime, of one predict in scikit-learn, in process",
        "less than 1 x",
        lambda r: r.found["fast_trip"]["p50"] / r.found["in_process"]["forest"]["p50_ms"],
        lambda x: x < 1,
        "{:.2f} x",
    ),
    Target(
        "submit_many against Celery's `delay`",
        "10 x",
        lambda r: (
            r.peers["headrace"]["submits_per_second"]["many"] / r.peers["celery"]["submits_per_second"]["one"]
        ),
        lambda x: x >= 10,
    ),
    Target(
        "submit against Celery's `delay`",
        "3 x",
        lambda r: (
            r.peers["headrace"]["submits_per_second"]["one"] / r.peers["celery"]["submits_per_second"]["one"]
        ),
        lambda x: x >= 3,
    ),
    Target(
        "idle round trip p50, of plain Celery's",
        "at most 0.4 x, the goal a third",
        lambda r: r.trip("headrace", "p50") / r.trip("celery", "p50"),
        lambda x: x <= 0.4,
        "{:.2f} x",
    ),
    Target(
        "idle round trip p50, above predict in process",
        "at most 2.5 ms",
        lambda r: r.trip("headrace", "p50") - r.found["in_process"]["logistic"]["p50_ms"],
        lambda x: x <= 2.5,
        "{:.2f} ms",
    ),
    Target(
        "idle round trip p99, of its p50",
        "at most 3 x",
        lambda r: r.trip("headrace", "p99") / r.trip("headrace", "p50"),
        lambda x: x <= 3,
    ),
    Target(
        "CPU for a job in Redis, of plain Celery's",
        "at most 1 x",
        lambda r: r.peers["headrace"]["redis_cpu_us"]["logistic"] / r.peers["celery"]["redis_cpu_us"]["logistic"],
        lambda x: x <= 1,
        "{:.2f} x",
    ),
    Target(
        "throughput with the deepest queue, of that with the shallowest",
        "at least 0.9 x",
        _depths,
        lambda x: x >= 0.9,
        "{:.2f} x",
    ),
    Target(
        "Redis memory for a waiting job, beyond its message",
        "at most 250 bytes",
        _overhead,
        lambda x: x <= 250,
        "{:.0f} bytes",
    ),
    Target(
        "two pool processes against one, a model bound by CPU",
        "1.6 x",
        lambda r: r.found["pools"]["two"] / r.found["pools"]["one"],
        lambda x: x >= 1.6,
        "{:.2f} x",
    ),
    Target(
        "what telling every event to a listener costs of the jobs/s",
        "at most 25 %",
        lambda r: 100 * (1 - r.rate("headrace-watched", "logistic") / r.rate("headrace", "logistic")),
        lambda x: x <= 25,
        "{:.0f} %",
    ),
    Target(
        "what events, metrics, health, Sentry and OpenTelemetry cost together of the jobs/s",
        "at most 15 %",
        lambda r: _cost(r, "on"),
        lambda x: x <= 15,
        "{:.0f} %",
    ),
    Target(
        "the same with the full prediction log to files",
        "at most 30 %",
        lambda r: _cost(r, "logged"),
        lambda x: x <= 30,
        "{:.0f} %",
    ),
)


def judged(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Each target with what was measured, and whether that is good; both None where it was not measured."""
    results = Results(found)
    rows = []
    for target in TARGETS:
        try:
            value = target.measured(results)
        except (KeyError, ValueError):
            value = None
        rows.append(
            {
                "what": target.what,
                "asked": target.asked,
                "measured": value,
                "shown": "not measured" if value is None else target.shown.format(value),
                "good": None if value is None else target.good(value),
            }
        )
    return rows
