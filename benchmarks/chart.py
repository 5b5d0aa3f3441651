"""The chart of docs/benchmarks.md: `python -m benchmarks.chart RESULTS.json CHART.svg`, where matplotlib is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt  # after the choice of how to draw

_OURS, _THEIRS = "#1f6f8b", "#b8b8b8"
_PANELS = {
    "logistic": "logistic regression",
    "forest": "random forest, 100 trees",
    "boosting": "histogram gradient boosting",
}


def draw(found: dict[str, Any], file: Path) -> None:
    """A panel for each model, a bar for each peer."""
    # The same results make the same file.
    plt.rcParams |= {"svg.hashsalt": "headrace", "font.size": 9, "svg.fonttype": "none"}
    figure, axes = plt.subplots(1, len(_PANELS), figsize=(12, 0.9 + 0.32 * len(found["peers"])))
    for axis, (model, title) in zip(axes, _PANELS.items(), strict=True):
        rows = sorted(found["peers"], key=lambda row: row["jobs_per_second"][model])
        rates = [row["jobs_per_second"][model] for row in rows]
        ours = [_OURS if row["name"].startswith("headrace") else _THEIRS for row in rows]
        bars = axis.barh([row["title"] for row in rows], rates, color=ours)
        axis.bar_label(bars, [f" {rate:,.0f}" for rate in rates])
        axis.set_title(title, loc="left")
        axis.set_xlim(0, max(rates) * 1.25)
        axis.set_xticks([])
        axis.spines[["top", "right", "bottom"]].set_visible(False)
    figure.supxlabel("jobs a second, end to end, single-row jobs, two worker processes", fontsize=9)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
