"""Check the model of the claim protocol with spin: `make model-check`, or `python -m tests.model_check --help`."""

from __future__ import annotations

import argparse
import subprocess
import sys
from datetime import UTC, datetime

from benchmarks.tables import as_text
from tests.model_check.checker import CheckError, check, check_fault, find_missing_tool
from tests.model_check.configurations import CONFIGURATIONS, FAULTS
from tests.model_check.report import configuration_table, fault_table, write_docs
from tests.model_check.traces import write_traces
from tests.support import ROOT

#: The seeds of which the stored traces are chosen, and the most traces.
_SEEDS, _TRACES = range(1, 301), 16


def main() -> int:
    """Check all configurations and all faults. Return 1 if a promise is broken, or a fault is not found."""
    parser = argparse.ArgumentParser(prog="python -m tests.model_check", description=__doc__)
    parser.add_argument(
        "--short", action="store_true", help="only what `make test` checks: small bounds, two faults"
    )
    parser.add_argument("--only", default="", help="only configurations and faults whose name contains this")
    parser.add_argument("--docs", action="store_true", help="write the tables into docs/reliability.md")
    parser.add_argument("--traces", action="store_true", help="write the traces that `make test` replays, and end")
    arguments = parser.parse_args()
    if (tool := find_missing_tool()) is not None:
        print(f"the model check needs {tool}; on Debian: apt-get install {tool}", file=sys.stderr)
        return 2
    if arguments.traces:
        print(f"{write_traces(_SEEDS, _TRACES)} traces")
        return 0
    configurations = [
        configuration
        for configuration in CONFIGURATIONS
        if arguments.only in configuration.name and (configuration.is_short or not arguments.short)
    ]
    faults = [
        fault for fault in FAULTS if arguments.only in fault.name and (fault.is_short or not arguments.short)
    ]
    try:
        results, failed = [], []
        for configuration in configurations:
            result = check(configuration)
            results.append((configuration, result))
            summary = result.violation or "all promises kept"
            print(
                f"{configuration.name:28} {result.states:>10,} states  {result.seconds:5.0f} s  {summary}",
                flush=True,
            )
            if result.violation is not None:
                failed.append(configuration.name)
                print("".join(f"    {step}\n" for step in result.steps), end="")
        fault_results = []
        for fault in faults:
            result = check_fault(fault)
            fault_results.append((fault, result))
            print(
                f"{fault.name:36} {'found' if result.violation else 'NOT FOUND'}: {result.violation}", flush=True
            )
            if result.violation is None:
                failed.append(fault.name)
    except CheckError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"\n{as_text(configuration_table(results))}\n\n{as_text(fault_table(fault_results))}")
    if arguments.docs and not failed:
        write_docs(ROOT / "docs" / "reliability.md", results, fault_results, _describe_run())
    if failed:
        print(f"\nFAILED: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _describe_run() -> str:
    version = subprocess.run(["spin", "-V"], capture_output=True, text=True, check=True).stdout.strip()
    return f"Run on {datetime.now(UTC):%Y-%m-%d} with {version}."


if __name__ == "__main__":
    sys.exit(main())
