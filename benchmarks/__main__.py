"""`python -m benchmarks`: measure, print tables, write JSON; with --docs also the page and its chart."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import models, report
from benchmarks.comparison import PROCESSES, Comparison
from benchmarks.environments import EnvironmentFailed, interpreter
from benchmarks.headrace_only import HeadraceOnly
from benchmarks.machine import commit, machine
from benchmarks.peers.registry import PEERS, PeerEntry
from benchmarks.redis_server import RedisServer
from benchmarks.sizes import LONG, SHORT, Sizes
from benchmarks.targets import evaluate
from benchmarks.telemetry_cost import TelemetryCost
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import interruptible_stack

_ROOT = Path(__file__).parent.parent
_PAGE, _CHART = _ROOT / "docs" / "benchmarks.md", _ROOT / "docs" / "benchmarks.svg"
_MEASUREMENTS = ("fast", "depths", "pools", "telemetry", "boosters", "durable")
#: Peers that are also measured with every write on disk before it is confirmed.
_BOOSTERS = ("headrace", "celery-tuned", "celery")
_DURABLE = ("headrace", "celery-tuned", "celery")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = [entry.name for entry in PEERS]
    parser.add_argument(
        "--short", action="store_true", help="small sizes: tests the suite; the numbers are not comparable"
    )
    parser.add_argument("--peers", default=",".join(names), help=f"comma-separated: {', '.join(names)}")
    parser.add_argument(
        "--more", default=",".join(_MEASUREMENTS), help=f"further measurements: {', '.join(_MEASUREMENTS)}"
    )
    parser.add_argument("--rounds", type=int, help="turns of every peer")
    parser.add_argument("--seconds", type=float, help="approximate duration of one run")
    parser.add_argument("--deepest", type=int, help="waiting jobs in the deepest queue")
    parser.add_argument("--out", type=Path, default=_ROOT / "benchmarks" / "results" / "latest.json")
    parser.add_argument("--docs", action="store_true", help="also write the results into docs/benchmarks.md")
    parser.add_argument(
        "--environment",
        action="append",
        default=[],
        metavar="NAME=PYTHON",
        help="use this interpreter for the environment NAME instead of creating it",
    )
    arguments = parser.parse_args()
    if unknown := set(_names(arguments.peers)) - set(names):
        parser.error(f"unknown peers {', '.join(sorted(unknown))}; choose from {', '.join(names)}")
    return arguments


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _sizes(arguments: argparse.Namespace) -> Sizes:
    sizes = SHORT if arguments.short else LONG
    return sizes._replace(
        rounds=arguments.rounds or sizes.rounds,
        seconds=arguments.seconds or sizes.seconds,
        depths=(sizes.depths[0], arguments.deepest or sizes.depths[1]),
    )


def measure(
    entries: list[PeerEntry], measurements: list[str], sizes: Sizes, environments: dict[str, str]
) -> dict[str, Any]:
    """Run all measurements on an embedded Redis; `environments` are interpreters by name of the environment."""
    load = os.getloadavg()[0]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-bench-")))
        redis = stack.enter_context(EmbeddedRedis())
        server = RedisServer(redis.url)
        stack.callback(server.close)
        print("fitting the models", file=sys.stderr)
        models.make(folder, fast="fast" in measurements or any(entry.name == "headrace-fast" for entry in entries))
        headrace_only = HeadraceOnly(server, folder, sizes)
        server.set_fsync("everysec")
        comparison = Comparison(server, folder, sizes, environments)
        comparison.run(entries)
        results: dict[str, Any] = {
            "date": datetime.now(UTC).date().isoformat(),
            "commit": commit(),
            "machine": machine(load),
            "redis": server.about(),
            "scikit_learn": version("scikit-learn"),
            "processes": PROCESSES,
            "sizes": sizes._asdict(),
            "peers": comparison.results(entries),
            "left_out": comparison.reasons(entries),
            "in_process": headrace_only.in_process(),
        }
        if "fast" in measurements:
            results["fast_round_trip_ms"] = headrace_only.fast_round_trip()
        if "depths" in measurements:
            results["depths"] = headrace_only.depths()
        if "pools" in measurements:
            results["pools"] = headrace_only.pools()
        if "telemetry" in measurements:
            results["telemetry_cost"] = TelemetryCost(server, folder, sizes).run()
        if "boosters" in measurements:
            models.make_boosters(folder / models.BOOSTERS_FOLDER)
            booster_entries = [entry for entry in entries if entry.name in _BOOSTERS]
            boosters = Comparison(server, folder / models.BOOSTERS_FOLDER, sizes, environments, models.BOOSTERS)
            boosters.run(booster_entries)
            results["boosters"] = {
                "date": results["date"],
                "commit": results["commit"],
                "load": os.getloadavg()[0],
                "peers": boosters.results(booster_entries),
            }
        if "durable" in measurements:
            server.set_fsync("always")
            durable_entries = [entry for entry in entries if entry.name in _DURABLE]
            durable = Comparison(server, folder, sizes, environments)
            durable.run(durable_entries)
            results["durable"] = durable.results(durable_entries)
    results["targets"] = evaluate(results)
    return results


def _draw(results: Path, environments: dict[str, str]) -> None:
    python = environments.get("main") or str(interpreter("main"))
    command = [python, "-m", "benchmarks.chart", str(results), str(_CHART)]
    subprocess.run(command, cwd=_ROOT, timeout=120, check=True)


def main() -> int:
    """Run the command; return its exit code."""
    arguments = _arguments()
    environments = dict(pair.split("=", 1) for pair in arguments.environment)
    peers = _names(arguments.peers)
    entries = [entry for entry in PEERS if entry.name in peers]
    with interruptible_stack():
        results = measure(entries, _names(arguments.more), _sizes(arguments), environments)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(report.terminal(results))
    print(f"\nwrote {arguments.out}", file=sys.stderr)
    if arguments.docs:
        try:
            _draw(arguments.out, environments)
        except (EnvironmentFailed, subprocess.SubprocessError) as error:
            print(f"no chart: {error}", file=sys.stderr)
        report.write_into(_PAGE, results, _CHART.name)
        print(f"wrote {_PAGE}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
