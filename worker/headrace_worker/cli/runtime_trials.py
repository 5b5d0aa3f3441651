"""The table of the runtimes that `headrace models add` tried."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from headrace.cli.tables import format_table, terminal_width

if TYPE_CHECKING:
    from headrace_worker.manifest import Manifest, Trial

#: Batch sizes of a trial, in instances, and their column titles.
_SIZES = {1: "1 INSTANCE", 64: "64 INSTANCES", 1024: "1,024 INSTANCES"}


def trial_lines(manifest: Manifest) -> Iterator[str]:
    """Yield the table of a version's trials: call times, difference to scikit-learn, and the selection."""
    if not manifest.trials:
        return
    header = ("RUNTIME", *_SIZES.values(), "DIFFERENCE", "")
    rows = [header, *(_row(trial, manifest.runtime) for trial in manifest.trials)]
    yield from format_table(rows, drops={2: 3, 1: 2, 4: 1}, texts={5}, width=terminal_width(sys.stdout))
    yield "times are milliseconds per call; the difference is the largest of any number to scikit-learn's"
    yield ""


def _row(trial: Trial, selected: str) -> tuple[str, ...]:
    if trial.refused:
        return (trial.runtime, *("-" for _ in _SIZES), "-", f"not used: {trial.refused}")
    times = [trial.milliseconds.get(size) for size in _SIZES]
    cells = ["-" if time is None else f"{time:,.3f}" for time in times]
    return (trial.runtime, *cells, f"{trial.difference:.0e}", "selected" if trial.runtime == selected else "")
