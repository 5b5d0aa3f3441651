"""The targets of the project: required numbers beside measured ones."""

from __future__ import annotations

from typing import Any

from benchmarks.models import BOOSTERS
from benchmarks.peers.registry import HEADRACE_VARIANTS
from benchmarks.target import Target, compare

#: The two configurations of plain Celery.
_CELERY = ("celery", "celery-tuned")


class Results:
    """Results in the form of `latest.json`, with access by name."""

    def __init__(self, results: dict[str, Any]) -> None:
        self.data = results
        self.peers: dict[str, Any] = {row["name"]: row for row in results["peers"]}

    def rate(self, name: str, model: str) -> float:
        """Return a peer's jobs per second."""
        return float(self.peers[name]["jobs_per_second"][model])

    def celery_rate(self, model: str) -> float:
        """Return plain Celery's jobs per second in its better configuration."""
        return max(self.rate(name, model) for name in _CELERY if name in self.peers)

    def best_rate(self, model: str) -> float:
        """Return the jobs per second of the best peer."""
        return max(self.rate(name, model) for name in self._other_peers())

    def best_submit_rate(self) -> float:
        """Return the single submissions per second of the best peer whose client is written in Python."""
        return max(self.submit_rate(name, "single") for name in self._other_peers() if name != "mayu")

    def best_round_trip(self) -> float:
        """Return the median idle round trip of the best peer, in milliseconds."""
        return min(self.round_trip(name, "p50") for name in self._other_peers())

    def _other_peers(self) -> list[str]:
        return [name for name in self.peers if name not in HEADRACE_VARIANTS]

    def booster_ratio(self, model: str) -> float:
        """Return Headrace's jobs per second of a booster, relative to plain Celery in its better configuration."""
        rates = {row["name"]: row["jobs_per_second"][model] for row in self.data["boosters"]["peers"]}
        return float(rates["headrace"] / max(rates[name] for name in _CELERY if name in rates))

    def round_trip(self, name: str, percentile: str) -> float:
        """Return a peer's idle round trip in milliseconds; `percentile` is p50 or p99."""
        return float(self.peers[name]["round_trip_ms"][percentile])

    def submit_rate(self, name: str, kind: str) -> float:
        """Return a peer's submissions per second; `kind` is single or bulk."""
        return float(self.peers[name]["submits_per_second"][kind])

    def redis_cpu(self, name: str) -> float:
        """Return the CPU time of Redis for a job of a peer, in microseconds."""
        return float(self.peers[name]["redis_cpu_us"]["logistic"])

    def depth_ratio(self) -> float:
        """Return the throughput with the deep queue, relative to the shallow one: the lowest of all servers."""
        return min(float(deep["of_shallow"]) for _, deep in self._depths())

    def memory_overhead(self) -> float:
        """Return the bytes of Redis memory for a job beyond its message, in the deepest queue of any server."""
        # The fixed memory of Redis itself does not count in a deep queue.
        return max(float(deep["memory_bytes"] - deep["message_bytes"]) for _, deep in self._depths())

    def _depths(self) -> list[list[dict[str, Any]]]:
        return [server["rows"] for server in self.data["depths"]["servers"] if server["rows"]]

    def fleet(self, workers: int, models: int, name: str) -> float:
        """Return a number of the fleet with so many workers and models."""
        rows = {(row["workers"], row["models"]): row for row in self.data["fleet"]["fleets"]}
        return float(rows[workers, models][name])

    def idle_commands(self, workers: int, models: int) -> float:
        """Return the commands a second of an idle fleet."""
        fleet = self.data["fleet"]
        rows = {(row["workers"], row["models"]): row for row in [*fleet["fleets"], fleet["many"]]}
        return float(rows[workers, models]["idle"]["commands_per_second"])

    def telemetry_cost(self, mode: str) -> float:
        """Return the percentage of throughput that telemetry costs in a mode."""
        return 100 * (1 - float(self.data["telemetry_cost"]["share_of_off"][mode]))


TARGETS: tuple[Target[Results], ...] = (
    Target(
        "jobs/s, logistic regression, relative to the best plain Celery",
        "at least 15 x",
        lambda results: results.rate("headrace", "logistic") / results.celery_rate("logistic"),
        lambda value: value >= 15,
    ),
    Target(
        "jobs/s, logistic regression, relative to the best peer",
        "at least 10 x",
        lambda results: results.rate("headrace", "logistic") / results.best_rate("logistic"),
        lambda value: value >= 10,
    ),
    Target(
        "jobs/s, random forest, relative to the best peer",
        "at least 60 x",
        lambda results: results.rate("headrace", "forest") / results.best_rate("forest"),
        lambda value: value >= 60,
    ),
    Target(
        "jobs/s, random forest in a fast runtime, relative to the best peer",
        "at least 45 x",
        lambda results: results.rate("headrace-fast", "forest") / results.best_rate("forest"),
        lambda value: value >= 45,
    ),
    *(
        Target(
            f"jobs/s, {title}, relative to the best plain Celery",
            "at least 30 x",
            lambda results, model=name: results.booster_ratio(model),  # type: ignore[misc]  # bound at once
            lambda value: value >= 30,
        )
        for name, title in BOOSTERS.items()
    ),
    Target(
        "idle round trip p50, random forest in a fast runtime, relative to one in-process scikit-learn predict",
        "less than 1 x",
        lambda results: results.data["fast_round_trip_ms"]["p50"] / results.data["in_process"]["forest"]["p50_ms"],
        lambda value: value < 1,
        "{:.2f} x",
    ),
    Target(
        "`submit_many`, relative to Celery's `delay`",
        "at least 10 x",
        lambda results: results.submit_rate("headrace", "bulk") / results.submit_rate("celery", "single"),
        lambda value: value >= 10,
    ),
    Target(
        "`submit`, relative to Celery's `delay`",
        "at least 3 x",
        lambda results: results.submit_rate("headrace", "single") / results.submit_rate("celery", "single"),
        lambda value: value >= 3,
    ),
    Target(
        "`submit`, relative to the best peer in Python",
        "at least 1 x",
        lambda results: results.submit_rate("headrace", "single") / results.best_submit_rate(),
        lambda value: value >= 1,
        "{:.2f} x",
    ),
    Target(
        "idle round trip p50, relative to the best peer",
        "at most 0.8 x",
        lambda results: results.round_trip("headrace", "p50") / results.best_round_trip(),
        lambda value: value <= 0.8,
        "{:.2f} x",
    ),
    Target(
        "idle round trip p50, relative to plain Celery",
        "at most 0.4 x",
        lambda results: results.round_trip("headrace", "p50") / results.round_trip("celery", "p50"),
        lambda value: value <= 0.4,
        "{:.2f} x",
    ),
    Target(
        "idle round trip p50, beyond in-process prediction",
        "at most 2.5 ms",
        lambda results: results.round_trip("headrace", "p50") - results.data["in_process"]["logistic"]["p50_ms"],
        lambda value: value <= 2.5,
        "{:.2f} ms",
    ),
    Target(
        "idle round trip p99, relative to its p50",
        "at most 3 x",
        lambda results: results.round_trip("headrace", "p99") / results.round_trip("headrace", "p50"),
        lambda value: value <= 3,
    ),
    Target(
        "CPU time of Redis for a job, relative to plain Celery",
        "at most 1 x",
        lambda results: results.redis_cpu("headrace") / results.redis_cpu("celery"),
        lambda value: value <= 1,
        "{:.2f} x",
    ),
    Target(
        "the same, as a time",
        "at most 15 µs",
        lambda results: results.redis_cpu("headrace"),
        lambda value: value <= 15,
        "{:.0f} µs",
    ),
    Target(
        "throughput with the deepest queue, relative to the shallowest, on the slowest server for it",
        "at least 0.95 x",
        lambda results: results.depth_ratio(),
        lambda value: value >= 0.95,
        "{:.2f} x",
    ),
    Target(
        "Redis memory for a waiting job, beyond its message",
        "at most 250 bytes",
        lambda results: results.memory_overhead(),
        lambda value: value <= 250,
        "{:.0f} bytes",
    ),
    Target(
        "two pool processes relative to one, CPU-bound model",
        "at least 1.6 x",
        lambda results: results.data["pools"]["two"] / results.data["pools"]["one"],
        lambda value: value >= 1.6,
        "{:.2f} x",
    ),
    Target(
        "throughput lost by sending every event to a subscriber",
        "at most 25 %",
        lambda results: (
            100 * (1 - results.rate("headrace-watched", "logistic") / results.rate("headrace", "logistic"))
        ),
        lambda value: value <= 25,
        "{:.0f} %",
    ),
    Target(
        "throughput lost by events, metrics, health, Sentry and OpenTelemetry together",
        "at most 10 %",
        lambda results: results.telemetry_cost("on"),
        lambda value: value <= 10,
        "{:.0f} %",
    ),
    Target(
        "the same, with the full prediction log to files",
        "at most 20 %",
        lambda results: results.telemetry_cost("logged"),
        lambda value: value <= 20,
        "{:.0f} %",
    ),
    Target(
        "claims for a job, 16 workers and 16 models, mostly idle",
        "at most 1.5",
        lambda results: results.fleet(16, 16, "claims_per_job"),
        lambda value: value <= 1.5,
        "{:.1f}",
    ),
    Target(
        "CPU time of Redis for a job, 8 workers and 8 models, mostly idle",
        "at most 0.3 ms",
        lambda results: results.fleet(8, 8, "redis_ms_per_job"),
        lambda value: value <= 0.3,
        "{:.2f} ms",
    ),
    Target(
        "the same, 16 workers and 16 models",
        "at most 0.3 ms",
        lambda results: results.fleet(16, 16, "redis_ms_per_job"),
        lambda value: value <= 0.3,
        "{:.2f} ms",
    ),
    Target(
        "commands a second of Redis, 8 idle workers and 8 models",
        "at most 40",
        lambda results: results.idle_commands(8, 8),
        lambda value: value <= 40,
        "{:,.0f}",
    ),
    Target(
        "the same, 100 workers and 50 models",
        "at most 500",
        lambda results: results.idle_commands(100, 50),
        lambda value: value <= 500,
        "{:,.0f}",
    ),
    Target(
        "first outcome of a worker after Redis was away for a minute, the slowest",
        "at most 3 s",
        lambda results: results.data["fleet"]["outage"]["max"],
        lambda value: value <= 3,
        "{:.1f} s",
    ),
    Target(
        "the same, after 20 minutes",
        "at most 3 s",
        lambda results: results.data["long_outage"]["max"],
        lambda value: value <= 3,
        "{:.1f} s",
    ),
)


def evaluate(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each target (`compare`)."""
    return compare(TARGETS, Results(results))
