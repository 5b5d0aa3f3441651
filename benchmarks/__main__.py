"""`python -m benchmarks`: measure, print tables, write JSON; with --docs also the page and its chart."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import models, report
from benchmarks.comparison import PROCESSES, Comparison
from benchmarks.environments import EnvironmentFailed, interpreter
from benchmarks.fleet import Fleet
from benchmarks.headrace_only import HeadraceOnly
from benchmarks.machine import commit, machine
from benchmarks.outages import measure_outages
from benchmarks.peers.registry import PEERS, PeerEntry
from benchmarks.redis_server import RedisServer
from benchmarks.sizes import LONG, SHORT, Sizes
from benchmarks.targets import evaluate
from benchmarks.telemetry_cost import TelemetryCost
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import interruptible_stack
from tests.support.redis_servers import SERVERS

_ROOT = Path(__file__).parent.parent
_PAGE, _CHART = _ROOT / "docs" / "benchmarks.md", _ROOT / "docs" / "benchmarks.svg"
#: Measurements whose results say when, and of which commit, they are: each can be repeated alone.
_SEPARATE = ("depths", "boosters", "fleet", "long_outage")
_MEASUREMENTS = ("fast", "depths", "pools", "telemetry", "boosters", "durable", "fleet")
#: A further measurement, only on request.
_LONG_OUTAGE = "long_outage"
#: Peers that also run boosters, and those measured with every write on disk before it is confirmed.
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
        "--more",
        default=",".join(_MEASUREMENTS),
        help=f"further measurements: {', '.join(_MEASUREMENTS)}; and {_LONG_OUTAGE}, which takes 20 minutes",
    )
    parser.add_argument(
        "--servers",
        default=",".join(SERVERS),
        help=f"servers whose deep queues are measured: {', '.join(SERVERS)}",
    )
    parser.add_argument("--rounds", type=int, help="turns of every peer")
    parser.add_argument("--seconds", type=float, help="approximate duration of one run")
    parser.add_argument("--deepest", type=int, help="waiting jobs in the deepest queue")
    parser.add_argument("--out", type=Path, default=_ROOT / "benchmarks" / "results" / "latest.json")
    parser.add_argument(
        "--update",
        action="store_true",
        help=f"measure only --more ({', '.join(_SEPARATE)}), and keep the other results of the file --out",
    )
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
    measurements = (*_MEASUREMENTS, _LONG_OUTAGE)
    if unknown := set(_names(arguments.more)) - set(measurements):
        parser.error(f"unknown measurements {', '.join(sorted(unknown))}; choose from {', '.join(measurements)}")
    if unknown := set(_names(arguments.servers)) - set(SERVERS):
        parser.error(f"unknown servers {', '.join(sorted(unknown))}; choose from {', '.join(SERVERS)}")
    if arguments.update and (others := set(_names(arguments.more)) - set(_SEPARATE)):
        parser.error(f"--update does not measure {', '.join(sorted(others))}; choose from {', '.join(_SEPARATE)}")
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
    entries: list[PeerEntry],
    measurements: list[str],
    sizes: Sizes,
    environments: dict[str, str],
    servers: Sequence[str] = (),
) -> dict[str, Any]:
    """Run all measurements on an embedded Redis; `environments` are interpreters by name of the environment.

    `servers` are the names of those whose deep queues are measured.
    """
    load = os.getloadavg()[0]
    run = {"date": datetime.now(UTC).date().isoformat(), "commit": commit(), "load": load}
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
            "date": run["date"],
            "commit": run["commit"],
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
            results["depths"] = {**run, "servers": [_measure_depths(name, folder, sizes) for name in servers]}
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
        if "fleet" in measurements:
            results["fleet"] = {**run, **Fleet(folder, sizes).run()}
        if _LONG_OUTAGE in measurements:
            results["long_outage"] = {**run, **measure_outages(folder, sizes, sizes.long_outage_seconds, 1)}
    results["targets"] = evaluate(results)
    return results


def _measure_depths(name: str, folder: Path, sizes: Sizes) -> dict[str, Any]:
    """Measure the depths on the server with this name, which starts for it alone."""
    find, reason = SERVERS[name]
    executable = find()
    if executable is None:
        return {"server": name, "left_out": reason, "rows": []}
    with EmbeddedRedis("--appendfsync", "everysec", server=executable) as redis:
        server = RedisServer(redis.url)
        try:
            print(f"deep queues on {server.title}", file=sys.stderr)
            return {"server": server.title, "rows": HeadraceOnly(server, folder, sizes).depths()}
        finally:
            server.close()


def update(file: Path, measured: dict[str, Any]) -> dict[str, Any]:
    """Return the results of a file with the separate measurements among `measured` in their place."""
    results: dict[str, Any] = json.loads(file.read_text())
    results |= {name: measured[name] for name in _SEPARATE if name in measured}
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
    # Of the separate measurements, only the boosters are measured beside peers.
    measurements, peers = _names(arguments.more), _names(arguments.peers)
    entries = [entry for entry in PEERS if entry.name in peers]
    if arguments.update and "boosters" not in measurements:
        entries = []
    with interruptible_stack():
        results = measure(entries, measurements, _sizes(arguments), environments, _names(arguments.servers))
    if arguments.update:
        results = update(arguments.out, results)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(report.terminal(results))
    print(f"\nwrote {arguments.out}", file=sys.stderr)
    if arguments.docs and not arguments.update:
        try:
            _draw(arguments.out, environments)
        except (EnvironmentFailed, subprocess.SubprocessError) as error:
            print(f"no chart: {error}", file=sys.stderr)
    if arguments.docs:
        report.write_into(_PAGE, results, _CHART.name)
        print(f"wrote {_PAGE}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
