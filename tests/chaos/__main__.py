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
from headrace_worker.local.stack import until_interrupted
from tests.chaos import report
from tests.chaos.arena import redis_version
from tests.chaos.disk import LeftOut
from tests.chaos.scenario import Played, Scenario, play
from tests.chaos.suite import SCENARIOS
from tests.chaos.workers import ROOT, Nursery

_HERE = Path(__file__).parent


def main() -> int:
    """Play what was asked for; 0 when all promises held."""
    asked = _arguments()
    began = time.monotonic()
    found: dict[str, Any] = {
        "date": date.today().isoformat(),
        "commit": commit(),
        "machine": machine(os.getloadavg()[0]),
        "redis": redis_version(),
        "celery": version("celery"),
        "seed": asked.seed,
        "played": [],
        "left_out": [],
        "failed": [],
    }
    with (
        until_interrupted(),
        tempfile.TemporaryDirectory(prefix="headrace-chaos-") as folder,
        Nursery(Path(folder)) as nursery,
    ):
        for number in asked.scenarios or sorted(SCENARIOS):
            for system in asked.systems:
                _play(SCENARIOS[number], system, asked, nursery, found)
    found["minutes"] = (time.monotonic() - began) / 60
    print(f"\n{report.terminal(found)}")
    if asked.out:
        asked.out.parent.mkdir(exist_ok=True)
        asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if asked.docs:
        report.write_into(ROOT / "docs" / "reliability.md", found)
    return 1 if report.broken(found) else 0


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


def _play(one: Scenario, system: str, asked: argparse.Namespace, nursery: Nursery, found: dict[str, Any]) -> None:
    times = getattr(one, asked.size) if system == "headrace" else one.control
    if not times:
        return
    print(f"{one.number:2} {one.title}, {system}: ", end="", flush=True)
    about = {"number": one.number, "title": one.title}
    try:
        played = play(one, system, asked.size, nursery, asked.seed)
    except LeftOut as reason:
        print(f"left out: {reason}")
        found["left_out"].append(about | {"reason": str(reason)})
    except Exception as error:  # noqa: BLE001  # the others are played all the same, and this one counts as failed
        traceback.print_exc()
        if system == "headrace":
            found["failed"].append(about | {"reason": f"{type(error).__name__}: {error}"})
        else:
            found["left_out"].append(about | {"reason": f"with {system}: {type(error).__name__}: {error}"})
    else:
        print(_in_a_line(played))
        found["played"].append(msgspec.to_builtins(played))


def _in_a_line(played: Played) -> str:
    verdict = played.verdict
    told = f"{played.seconds:.0f} s, {verdict.confirmed:,} confirmed, {verdict.lost + verdict.stuck} lost"
    return f"{told}; {'; '.join(verdict.broken) or 'all held'}"


if __name__ == "__main__":
    sys.exit(main())
