"""Fuzz what reads what others wrote: `make fuzz`, or `python -m tests.fuzz --help`.

With Atheris, inputs that reach new code are mutated further. Where it is not installed, or with --blind, only the
valid inputs are mutated.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.campaign import fuzz_guided, read_grown
from tests.fuzz.fuzzer import Finding, fuzz, run_input
from tests.fuzz.kept import keep, write_input
from tests.fuzz.target import Target
from tests.fuzz.targets import open_targets

_FINDINGS = Path("fuzz-findings")


def main() -> int:
    """Run all targets. Return 1 if any input broke a promise."""
    arguments = _parse()
    logging.getLogger("headrace").setLevel(logging.CRITICAL)  # it names each damaged thing
    with tempfile.TemporaryDirectory() as folder, open_targets(Path(folder)) as targets:
        if arguments.repeat:
            return _repeat(targets, arguments.repeat)
        chosen = [target for target in targets if arguments.target in target.name]
        findings: list[Path] = []
        for target in chosen:
            if arguments.blind:
                findings += _fuzz_blind(target, arguments)
            else:
                findings += _fuzz_guided(target, Path(folder) / target.slug, arguments, len(chosen))
    print(f"{len(findings)} findings, seed {arguments.seed}")
    for path in findings[:20]:
        error = path.with_suffix(".error").read_text(errors="replace").strip()
        print(f"\n{error[-1500:]}\nRepeat it with: python -m tests.fuzz --repeat {path}")
    return 1 if findings else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="the time of all targets; default: 600")
    parser.add_argument("--seed", type=int, default=1, help="the seed of all mutations; default: 1")
    parser.add_argument("--target", default="", help="only targets whose name contains this")
    parser.add_argument("--keep", action="store_true", help="add the inputs that reach new code to the corpus")
    parser.add_argument("--repeat", type=Path, metavar="FILE", help="run the input of a finding again, and end")
    parser.add_argument("--blind", action="store_true", help="mutate without guidance, a fixed number of inputs")
    parser.add_argument("--scale", type=float, default=1.0, help="blind: how many of these inputs; default: 1")
    arguments = parser.parse_args()
    if not arguments.blind and importlib.util.find_spec("atheris") is None:
        print("Atheris is not installed here: the inputs are mutated without guidance", file=sys.stderr)
        arguments.blind = True
    return arguments


def _fuzz_blind(target: Target, arguments: argparse.Namespace) -> list[Path]:
    count, started = max(1, round(target.count * arguments.scale)), time.perf_counter()
    findings = fuzz(target, count, arguments.seed)
    seconds = time.perf_counter() - started
    print(f"{target.name:26} {count:9,} inputs  {seconds:6.1f} s  {len(findings)} findings", flush=True)
    return [_store(target, finding) for finding in findings]


def _fuzz_guided(target: Target, folder: Path, arguments: argparse.Namespace, count: int) -> list[Path]:
    outcome = fuzz_guided(target, folder, seconds=arguments.seconds / count, seed=arguments.seed)
    findings = []
    for path in outcome.findings:
        error = path.with_suffix(".error").read_text(errors="replace")
        finding = Finding(target=target.name, number=0, data=path.read_bytes(), error=error)
        findings.append(_store(target, finding))
    addition = f"  {keep(target, read_grown(folder))} kept" if arguments.keep else ""
    summary = f"{outcome.branches:6,} branches  {len(findings)} findings{addition}"
    print(f"{target.name:26} {outcome.inputs:9,} inputs  {summary}", flush=True)
    return findings


def _store(target: Target, finding: Finding) -> Path:
    path = write_input(_FINDINGS / target.slug, finding.data)
    path.with_suffix(".error").write_text(finding.error)
    return path


def _repeat(targets: list[Target], path: Path) -> int:
    """Run the input of a finding, whose folder is named after its target."""
    target = next((target for target in targets if target.slug == path.parent.name), None)
    if target is None:
        slugs = ", ".join(target.slug for target in targets)
        print(f"the folder of {path} names no target; it is one of {slugs}", file=sys.stderr)
        return 2
    error = run_input(target, path.read_bytes())
    print(error or f"{target.name}: the promise holds")
    return 1 if error else 0


if __name__ == "__main__":
    sys.exit(main())
