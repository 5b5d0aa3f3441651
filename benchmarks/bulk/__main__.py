"""`python -m benchmarks.bulk`: measure bulk runs, print tables, write JSON; with --docs also the page."""

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

from benchmarks.bulk import models
from benchmarks.bulk.comparison import LIMIT, TITLES, Comparison
from benchmarks.bulk.files import Files
from benchmarks.bulk.memory import measure_memory
from benchmarks.bulk.online import measure_online
from benchmarks.bulk.page import PAGE
from benchmarks.bulk.scaling import measure_scaling
from benchmarks.bulk.site import Site
from benchmarks.bulk.sizes import LONG, SHORT, Sizes
from benchmarks.bulk.submission import measure_submission
from benchmarks.machine import commit, machine
from benchmarks.redis_server import RedisServer
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import interruptible_stack

_ROOT = Path(__file__).parents[2]
_MEASUREMENTS = ("comparison", "files", "scaling", "online", "memory", "submission")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bulk", description=__doc__)
    parser.add_argument(
        "--short", action="store_true", help="small sizes: tests the suite; the numbers are not comparable"
    )
    parser.add_argument(
        "--only", default=",".join(_MEASUREMENTS), help=f"comma-separated: {', '.join(_MEASUREMENTS)}"
    )
    parser.add_argument("--ways", default=",".join(TITLES), help=f"comma-separated: {', '.join(TITLES)}")
    parser.add_argument("--rounds", type=int, help="turns of every way")
    parser.add_argument("--out", type=Path, default=_ROOT / "benchmarks" / "results" / "bulk.json")
    parser.add_argument(
        "--update", action="store_true", help="keep the results of the file --out that are not measured"
    )
    parser.add_argument("--docs", action="store_true", help="also write the results into docs/bulk-benchmarks.md")
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
    if unknown := set(arguments.ways) - set(TITLES):
        parser.error(f"unknown ways {', '.join(sorted(unknown))}; choose from {', '.join(TITLES)}")
    if LIMIT not in arguments.ways:
        parser.error(f"{LIMIT} cannot be left out: the others are compared with it")
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
            site = Site(server, folder, models.make(folder, sizes.trees))
            measurements: dict[str, Callable[[], dict[str, Any]]] = {
                "comparison": lambda: Comparison(site, sizes, environments).run(ways),
                "files": lambda: Files(site, sizes).run(),
                "scaling": lambda: measure_scaling(site, sizes),
                "online": lambda: measure_online(site, sizes),
                "memory": lambda: measure_memory(site, sizes),
                "submission": lambda: measure_submission(site, sizes),
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
    ways = [name for name in TITLES if name in arguments.ways]
    with interruptible_stack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-bulk-")))
        results = measure(arguments.only, ways, sizes, environments, folder)
    PAGE.store(results, arguments.out, update=arguments.update, docs=arguments.docs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
