"""Run the chaos scenarios, and print or store the results: `make chaos`, or `python -m tests.chaos --help`."""

from __future__ import annotations

import argparse
import json
import os
import sys
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
from tests.chaos.disk import SkipScenario
from tests.chaos.installed_servers import redis_version
from tests.chaos.scenario import Scenario, ScenarioResult, run_scenario
from tests.chaos.suite import SCENARIOS
from tests.chaos.workers import ROOT


def main() -> int:
    """Run the chosen scenarios. Return 0 if all promises were kept."""
    arguments = _arguments()
    started_at = time.monotonic()
    results: dict[str, Any] = {
        "date": date.today().isoformat(),
        "commit": commit(),
        "machine": machine(os.getloadavg()[0]),
        "redis": redis_version(),
        "celery": version("celery"),
        "seed": arguments.seed,
        "runs": [],
        "skipped": [],
        "failed": [],
    }
    with interruptible_stack():
        for number in arguments.scenarios or sorted(SCENARIOS):
            for system in arguments.systems:
                _run(SCENARIOS[number], system, arguments, results)
    results["minutes"] = (time.monotonic() - started_at) / 60
    if arguments.update and arguments.out:
        results = report.update(json.loads(arguments.out.read_text(encoding="utf-8")), results)
    print(f"\n{report.as_text_page(results)}")
    if arguments.out:
        arguments.out.parent.mkdir(exist_ok=True)
        arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if arguments.docs:
        report.write_into(ROOT / "docs" / "reliability.md", results)
    return 1 if report.broken_promises(results) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument(
        "scenarios", nargs="*", type=int, choices=[[], *sorted(SCENARIOS)], help="numbers; default: all"
    )
    parser.add_argument(
        "--short",
        dest="size",
        action="store_const",
        const="short",
        default="long",
        help="few faults, a short lease",
    )
    parser.add_argument(
        "--systems",
        type=lambda text: text.split(","),
        default=["headrace", "celery"],
        help="headrace, celery or both; default: both",
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of all random choices of the suite")
    parser.add_argument("--out", type=Path, help="a file for the results, as JSON")
    parser.add_argument(
        "--update", action="store_true", help="keep the results of the file --out for scenarios that do not run"
    )
    parser.add_argument("--docs", action="store_true", help="write the results into docs/reliability.md")
    return parser.parse_args()


def _run(
    scenario: Scenario,
    system: str,
    arguments: argparse.Namespace,
    results: dict[str, Any],
) -> None:
    repetitions = getattr(scenario, arguments.size) if system == "headrace" else scenario.control
    if not repetitions:
        return
    print(f"{scenario.number:2} {scenario.title}, {system}: ", end="", flush=True)
    identity = {"number": scenario.number, "title": scenario.title}
    try:
        result = run_scenario(scenario, system, arguments.size, arguments.seed)
    except SkipScenario as reason:
        print(f"skipped: {reason}")
        results["skipped"].append(identity | {"reason": str(reason)})
    except Exception as error:  # noqa: BLE001  # the other scenarios run all the same, and this one counts as failed
        traceback.print_exc()
        if system == "headrace":
            results["failed"].append(identity | {"reason": f"{type(error).__name__}: {error}"})
        else:
            results["skipped"].append(identity | {"reason": f"with {system}: {type(error).__name__}: {error}"})
    else:
        print(_summary(result))
        results["runs"].append(msgspec.to_builtins(result))


def _summary(result: ScenarioResult) -> str:
    check = result.check
    counts = f"{result.seconds:.0f} s, {check.confirmed:,} confirmed, {check.lost + check.unfinished} lost"
    return f"{counts}; {'; '.join([*check.broken_promises, *check.missed_deadlines]) or 'all promises kept'}"


if __name__ == "__main__":
    sys.exit(main())
