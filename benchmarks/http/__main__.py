"""`python -m benchmarks.http`: measure the gateway, print tables, write JSON; with --docs also the page."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.http.client import measure_client
from benchmarks.http.comparison import Comparison
from benchmarks.http.files import measure_files
from benchmarks.http.models import Models
from benchmarks.http.page import PAGE
from benchmarks.http.running import WAYS, Site
from benchmarks.http.sizes import LONG, SHORT, Sizes
from benchmarks.http.slow_clients import measure_slow_clients
from benchmarks.machine import commit, machine
from benchmarks.redis_server import RedisServer
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import interruptible_stack

_ROOT = Path(__file__).parents[2]
_MEASUREMENTS = ("comparison", "client", "slow_clients", "files")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.http", description=__doc__)
    parser.add_argument(
        "--short", action="store_true", help="small sizes: tests the suite; the numbers are not comparable"
    )
    parser.add_argument(
        "--only", default=",".join(_MEASUREMENTS), help=f"comma-separated: {', '.join(_MEASUREMENTS)}"
    )
    parser.add_argument("--ways", default=",".join(WAYS), help=f"comma-separated: {', '.join(WAYS)}")
    parser.add_argument("--rounds", type=int, help="turns of every server")
    parser.add_argument("--out", type=Path, default=_ROOT / "benchmarks" / "results" / "http.json")
    parser.add_argument(
        "--update", action="store_true", help="keep the results of the file --out that are not measured"
    )
    parser.add_argument("--docs", action="store_true", help="also write the results into docs/http-benchmarks.md")
    parser.add_argument(
        "--environment",
        action="append",
        default=[],
        metavar="NAME=PYTHON",
        help="use this interpreter for the environment NAME instead of creating it",
    )
    arguments = parser.parse_args()
    arguments.only, arguments.ways = arguments.only.split(","), arguments.ways.split(",")
    if unknown := set(arguments.only) - set(_MEASUREMENTS):
        parser.error(f"unknown measurements {', '.join(sorted(unknown))}; choose from {', '.join(_MEASUREMENTS)}")
    if unknown := set(arguments.ways) - set(WAYS):
        parser.error(f"unknown ways {', '.join(sorted(unknown))}; choose from {', '.join(WAYS)}")
    return arguments


def measure(
    names: list[str], ways: list[str], sizes: Sizes, environments: dict[str, str], folder: Path
) -> dict[str, Any]:
    """Run measurements on a Redis of their own; `environments` are interpreters by name of the environment."""
    results: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "machine": machine(os.getloadavg()[0]),
        "scikit_learn": version("scikit-learn"),
        "sizes": sizes._asdict(),
    }
    with EmbeddedRedis("--appendfsync", "everysec") as redis:
        server = RedisServer(redis.url)
        try:
            results["redis"] = server.about()
            print("fitting the models", file=sys.stderr)
            site = Site(server, folder, Models(folder, sizes.trees), environments)
            measurements: dict[str, Callable[[], dict[str, Any]]] = {
                "comparison": lambda: Comparison(site, sizes).run(ways),
                "client": lambda: measure_client(site, sizes),
                "slow_clients": lambda: measure_slow_clients(site, sizes),
                "files": lambda: measure_files(site, sizes),
            }
            for name in names:
                server.reset()
                results[name] = measurements[name]()
        finally:
            server.close()
    return results


def main() -> int:
    """Run the command; return its exit code."""
    arguments = _arguments()
    sizes = SHORT if arguments.short else LONG
    sizes = sizes._replace(rounds=arguments.rounds or sizes.rounds)
    environments = dict(pair.split("=", 1) for pair in arguments.environment)
    ways = [name for name in WAYS if name in arguments.ways]
    with interruptible_stack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-http-")))
        results = measure(arguments.only, ways, sizes, environments, folder)
    PAGE.store(results, arguments.out, update=arguments.update, docs=arguments.docs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
