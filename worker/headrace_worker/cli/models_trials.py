"""What `headrace models add` says of the runtimes it tried."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace_worker.manifest import Manifest, Trial

_SIZES = ("1 ROW", "64 ROWS", "1,024 ROWS")


def table(manifest: Manifest) -> Iterator[str]:
    """The trials of a version: how long calls took, how far predictions were from scikit-learn's, and why not."""
    if not manifest.trials:
        return
    rows = [("RUNTIME", *_SIZES, "DIFFERENCE", ""), *(_row(trial, manifest.runtime) for trial in manifest.trials)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for *cells, said in rows:
        yield "  ".join([*(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)), said]).rstrip()
    yield "milliseconds for a call; the difference is the largest of a number from scikit-learn's"
    yield ""


def _row(trial: Trial, kept: str) -> tuple[str, ...]:
    if trial.refused:
        return (trial.runtime, *("-" for _ in _SIZES), "-", f"not used: {trial.refused}")
    times = [trial.milliseconds.get(size) for size in (1, 64, 1024)]
    shown = ["-" if time is None else f"{time:,.3f}" for time in times]
    return (trial.runtime, *shown, f"{trial.difference:.0e}", "kept" if trial.runtime == kept else "")
