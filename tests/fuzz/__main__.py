"""Fuzz what reads messages, manifests, stored data and files: `make fuzz`, or `python -m tests.fuzz --help`."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.claims import running_claims
from tests.fuzz.fuzzer import fuzz
from tests.fuzz.targets import all_targets


def main() -> int:
    """Run all targets. Return 1 if any input broke a promise."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the seed of all mutations; default: 1")
    parser.add_argument("--scale", type=float, default=1.0, help="how many inputs, of a full run; default: 1")
    parser.add_argument("--target", default="", help="only targets whose name contains this")
    arguments = parser.parse_args()
    logging.getLogger("headrace").setLevel(logging.CRITICAL)  # it names each damaged thing
    findings, total = [], 0
    with tempfile.TemporaryDirectory() as folder, running_claims(Path(folder)) as claim_targets:
        for target in (*all_targets(), *claim_targets):
            if arguments.target not in target.name:
                continue
            count, started = max(1, round(target.count * arguments.scale)), time.perf_counter()
            target_findings = fuzz(target, count, arguments.seed)
            seconds = time.perf_counter() - started
            total += count
            findings += target_findings
            summary = f"{len(target_findings)} findings"
            print(f"{target.name:26} {count:7,} inputs  {seconds:6.1f} s  {summary}", flush=True)
    print(f"{total:,} inputs, {len(findings)} findings, seed {arguments.seed}")
    for finding in findings[:20]:
        print(f"\n{finding.target}, input {finding.number}: {finding.data[:300]!r}\n{finding.error}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
