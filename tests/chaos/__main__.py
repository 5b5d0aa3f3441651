"""Play the scenarios, print the table, and keep it: `make chaos`, or `python -m tests.chaos --help`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.machine import commit, machine
from headrace_worker.local.stack import interruptible_stack
from tests.chaos import report
from tests.chaos.arena import redis_version
from tests.chaos.disk import LeftOut
from tests.chaos.scenario import Played, Scenario, play
from tests.chaos.suite import SCENARIOS
from tests.chaos.workers import ROOT, Nursery

_HERE = Path(__file__).parent


def main() -> int:
    """Play what was asked for; 0 when all promises held."""
    arguments = _arguments()
    began = time.monotonic()
    results: dict[str, Any] = {
        "date": date.today().isoformat(),
        "commit": commit(),
        "machine": machine(os.getloadavg()[0]),
        "redis": redis_version(),
        "celery": version("celery"),
        "seed": arguments.seed,
        "played": [],
        "left_out": [],
        "failed": [],
    }
    with (
        interruptible_stack(),
        tempfile.TemporaryDirectory(prefix="headrace-chaos-") as folder,
        Nursery(Path(folder)) as nursery,
    ):
        for number in arguments.scenarios or sorted(SCENARIOS):
            for system in arguments.systems:
                _play(SCENARIOS[number], system, arguments, nursery, results)
    results["minutes"] = (time.monotonic() - began) / 60
    print(f"\n{report.terminal(results)}")
    if arguments.out:
        arguments.out.parent.mkdir(exist_ok=True)
        arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if arguments.docs:
        report.write_into(ROOT / "docs" / "reliability.md", results)
    return 1 if report.broken(results) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("scenarios", nargs="*", type=int, choices=[[], *sorted(SCENARIOS)], help="numbers; all")
    parser.add_argument("--short", dest="size", action="store_const", const="short", default="long")
    parser.add_argument("--systems", type=lambda text: text.split(","), default=["headrace", "celery"])
    parser.add_argument(
        "--seed", type=int, default=1, help="of what is left to chance, but for the machine's part"
    )
    parser.add_argument("--out", type=Path, help="where the results go, as JSON")
    parser.add_argument("--docs", action="store_true", help="write docs/reliability.md")
    return parser.parse_args()


def _play(
    scenario: Scenario, system: str, arguments: argparse.Namespace, nursery: Nursery, results: dict[str, Any]
) -> None:
    times = getattr(scenario, arguments.size) if system == "headrace" else scenario.control
    if not times:
        return
    print(f"{scenario.number:2} {scenario.title}, {system}: ", end="", flush=True)
    about = {"number": scenario.number, "title": scenario.title}
    try:
        played = play(scenario, system, arguments.size, nursery, arguments.seed)
    except LeftOut as reason:
        print(f"left out: {reason}")
        results["left_out"].append(about | {"reason": str(reason)})
    except Exception as error:  # noqa: BLE001  # the others are played all the same, and this one counts as failed
        traceback.print_exc()
        if system == "headrace":
            results["failed"].append(about | {"reason": f"{type(error).__name__}: {error}"})
        else:
            results["left_out"].append(about | {"reason": f"with {system}: {type(error).__name__}: {error}"})
    else:
        print(_in_a_line(played))
        results["played"].append(msgspec.to_builtins(played))


def _in_a_line(played: Played) -> str:
    verdict = played.verdict
    summary = f"{played.seconds:.0f} s, {verdict.confirmed:,} confirmed, {verdict.lost + verdict.stuck} lost"
    return f"{summary}; {'; '.join(verdict.broken) or 'all held'}"


if __name__ == "__main__":
    sys.exit(main())
