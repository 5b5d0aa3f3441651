"""The chart of docs/benchmarks.md: `python -m benchmarks.chart RESULTS.json CHART.svg`; needs matplotlib."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt  # after the backend is chosen

_HEADRACE_COLOR, _PEER_COLOR = "#1f6f8b", "#b8b8b8"
_PANELS = {
    "logistic": "logistic regression",
    "forest": "random forest, 100 trees",
    "boosting": "histogram gradient boosting",
}


def draw(results: dict[str, Any], file: Path) -> None:
    """Draw a panel for each model with a bar for each peer."""
    # A fixed salt, so that the same results give the same file.
    plt.rcParams |= {"svg.hashsalt": "headrace", "font.size": 9, "svg.fonttype": "none"}
    figure, axes = plt.subplots(1, len(_PANELS), figsize=(12, 0.9 + 0.32 * len(results["peers"])))
    for axis, (model, title) in zip(axes, _PANELS.items(), strict=True):
        rows = sorted(results["peers"], key=lambda row: row["jobs_per_second"][model])
        rates = [row["jobs_per_second"][model] for row in rows]
        colors = [_HEADRACE_COLOR if row["name"].startswith("headrace") else _PEER_COLOR for row in rows]
        bars = axis.barh([row["title"] for row in rows], rates, color=colors)
        axis.bar_label(bars, [f" {rate:,.0f}" for rate in rates])
        axis.set_title(title, loc="left")
        axis.set_xlim(0, max(rates) * 1.25)
        axis.set_xticks([])
        axis.spines[["top", "right", "bottom"]].set_visible(False)
    figure.supxlabel("jobs per second, end to end, single-row jobs, two worker processes", fontsize=9)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
