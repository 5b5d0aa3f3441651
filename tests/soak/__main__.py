"""Run a whole stack for hours with a kill each minute, and look for leaks and lost jobs: `make soak`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from headrace_worker.local.stack import interruptible_stack
from tests.chaos.workers import ROOT
from tests.soak import report
from tests.soak.run import SoakConfig, run_soak


def main() -> int:
    """Run a soak. Return 0 if all promises were kept, 130 if it was interrupted."""
    defaults = SoakConfig()
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=defaults.minutes, help=f"default: {defaults.minutes:g}")
    parser.add_argument("--rate", type=float, default=0.0, help="jobs per second; default: half of a calibration")
    parser.add_argument("--seed", type=int, default=1, help="seed of all random choices; default: 1")
    parser.add_argument("--out", type=Path, help="a file for the result, as JSON")
    parser.add_argument("--docs", action="store_true", help="write the result into docs/reliability.md")
    parser.add_argument("--samples", type=Path, help="a file for all samples, as JSON")
    arguments = parser.parse_args()
    config = SoakConfig(minutes=arguments.minutes, rate=arguments.rate, seed=arguments.seed)
    with interruptible_stack():
        result = run_soak(config, arguments.samples)
    print(f"\n{report.as_text_page(result)}")
    if result.is_interrupted:
        print("neither the results nor docs/reliability.md were changed")
        return 130
    if arguments.out:
        arguments.out.parent.mkdir(exist_ok=True)
        encoded = msgspec.json.format(msgspec.json.encode(result), indent=1)
        arguments.out.write_bytes(encoded + b"\n")
    if arguments.docs:
        report.write_into(ROOT / "docs" / "reliability.md", result)
    return 1 if result.problems else 0


if __name__ == "__main__":
    sys.exit(main())
