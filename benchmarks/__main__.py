"""`python -m benchmarks`: measure, print the tables, write the JSON, and with --docs the page and its chart."""

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
from benchmarks.alone import Alone
from benchmarks.compare import PROCESSES, Comparison
from benchmarks.environments import NoEnvironment, interpreter
from benchmarks.machine import commit, machine
from benchmarks.roster import ROSTER, Entry
from benchmarks.server import Server
from benchmarks.sizes import LONG, SHORT, Sizes
from benchmarks.targets import judged
from benchmarks.telling import Telling
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import until_interrupted

_ROOT = Path(__file__).parent.parent
_PAGE, _CHART = _ROOT / "docs" / "benchmarks.md", _ROOT / "docs" / "benchmarks.svg"
_MORE = ("fast", "depth", "pools", "telling", "durable")
#: Whose numbers are also taken with every write on disk before it is confirmed.
_DURABLE = ("headrace", "celery-tuned", "celery")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    known = [entry.name for entry in ROSTER]
    parser.add_argument(
        "--short", action="store_true", help="small sizes: to see that all is well, not to compare"
    )
    parser.add_argument("--peers", default=",".join(known), help=f"which, with commas; of {', '.join(known)}")
    parser.add_argument("--more", default=",".join(_MORE), help=f"what else to measure: of {', '.join(_MORE)}")
    parser.add_argument("--rounds", type=int, help="turns of every peer")
    parser.add_argument("--seconds", type=float, help="about what one run takes")
    parser.add_argument("--deepest", type=int, help="jobs waiting in the deepest queue")
    parser.add_argument("--out", type=Path, default=_ROOT / "benchmarks" / "results" / "latest.json")
    parser.add_argument("--docs", action="store_true", help="write the results into docs/benchmarks.md too")
    parser.add_argument(
        "--environment",
        action="append",
        default=[],
        metavar="NAME=PYTHON",
        help="take this interpreter for the environment NAME instead of making one",
    )
    given = parser.parse_args()
    if unknown := set(_listed(given.peers)) - set(known):
        parser.error(f"no peer is called {', '.join(sorted(unknown))}; they are {', '.join(known)}")
    return given


def _listed(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _sizes(given: argparse.Namespace) -> Sizes:
    sizes = SHORT if given.short else LONG
    return sizes._replace(
        rounds=given.rounds or sizes.rounds,
        seconds=given.seconds or sizes.seconds,
        depths=(sizes.depths[0], given.deepest or sizes.depths[1]),
    )


def measure(entries: list[Entry], more: list[str], sizes: Sizes, environments: dict[str, str]) -> dict[str, Any]:
    """Everything, on a Redis of its own."""
    load = os.getloadavg()[0]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-bench-")))
        at = stack.enter_context(EmbeddedRedis())
        server = Server(at.url)
        stack.callback(server.close)
        print("fitting the models", file=sys.stderr)
        models.make(folder, fast="fast" in more or any(entry.name == "headrace-fast" for entry in entries))
        own = Alone(server, folder, sizes)
        server.sync("everysec")
        comparison = Comparison(server, folder, sizes, environments)
        comparison.run(entries)
        found: dict[str, Any] = {
            "date": datetime.now(UTC).date().isoformat(),
            "commit": commit(),
            "machine": machine(load),
            "redis": server.about(),
            "scikit_learn": version("scikit-learn"),
            "processes": PROCESSES,
            "sizes": sizes._asdict(),
            "peers": comparison.results(entries),
            "left_out": comparison.absent(entries),
            "in_process": own.in_process(),
        }
        if "fast" in more:
            found["fast_trip"] = own.fast_trip()
        if "depth" in more:
            found["depth"] = own.depth()
        if "pools" in more:
            found["pools"] = own.pools()
        if "telling" in more:
            found["telling"] = Telling(server, folder, sizes).run()
        if "durable" in more:
            server.sync("always")
            durable = Comparison(server, folder, sizes, environments)
            durable.run(sure := [entry for entry in entries if entry.name in _DURABLE])
            found["durable"] = durable.results(sure)
    found["targets"] = judged(found)
    return found


def _draw(results: Path, environments: dict[str, str]) -> None:
    python = environments.get("main") or str(interpreter("main"))
    command = [python, "-m", "benchmarks.chart", str(results), str(_CHART)]
    subprocess.run(command, cwd=_ROOT, timeout=120, check=True)


def main() -> int:
    """The command."""
    given = _arguments()
    environments = dict(pair.split("=", 1) for pair in given.environment)
    chosen = _listed(given.peers)
    entries = [entry for entry in ROSTER if entry.name in chosen]
    with until_interrupted():
        found = measure(entries, _listed(given.more), _sizes(given), environments)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=1) + "\n")
    print(report.terminal(found))
    print(f"\nwritten to {given.out}", file=sys.stderr)
    if given.docs:
        try:
            _draw(given.out, environments)
        except (NoEnvironment, subprocess.SubprocessError) as error:
            print(f"no chart: {error}", file=sys.stderr)
        report.write_into(_PAGE, found, _CHART.name)
        print(f"written into {_PAGE}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
