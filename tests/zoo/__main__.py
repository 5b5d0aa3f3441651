"""Package and serve every model of the zoo: `make zoo`, or `python -m tests.zoo --help`."""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from tests.zoo.collection import all_cases, is_unexpected, run_titles
from tests.zoo.report import summary, write_page

#: Processes, each with a worker of its own.
_PROCESSES = 2


def main() -> int:
    """Run all cases. Return 1 if any is wrong, or is refused and should not be."""
    parser = argparse.ArgumentParser(prog="python -m tests.zoo", description=__doc__)
    parser.add_argument("--only", default="", help="only the models whose group or name contains this")
    parser.add_argument("--docs", action="store_true", help="write the tables of docs/reference/models.md")
    arguments = parser.parse_args()
    titles = [case.title for case in all_cases() if arguments.only in case.title]
    started = time.monotonic()
    with ProcessPoolExecutor(_PROCESSES, mp_context=get_context("spawn")) as processes:
        batches = list(processes.map(run_titles, [titles[number::_PROCESSES] for number in range(_PROCESSES)]))
    outcomes = sorted(
        (outcome for batch in batches for outcome in batch), key=lambda outcome: titles.index(outcome.title)
    )
    unexpected = [outcome for outcome in outcomes if is_unexpected(outcome)]
    if arguments.docs:
        write_page(outcomes)
    for outcome in unexpected:
        print(f"\n{outcome.title}: {outcome.verdict}: {outcome.text}")
    print(f"{summary(outcomes)} {time.monotonic() - started:.0f} s")
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main())
