"""One pool process and two, with a model that computes: the forest."""

from __future__ import annotations

import shutil
import statistics
import sys
from typing import Any

from benchmarks.bulk import tables
from benchmarks.bulk.site import Site
from benchmarks.bulk.sizes import Sizes

_MODEL = "forest"


def measure_scaling(site: Site, sizes: Sizes) -> dict[str, Any]:
    """Return the rows per second with one pool process and with two, as medians, and their ratio."""
    folder = site.inputs / "scaling"
    tables.write_parquet(folder, "numbers", sizes.scaling_rows, files=sizes.files, group_rows=sizes.group_rows)
    rates: dict[int, list[float]] = {1: [], 2: []}
    for number in range(sizes.rounds):
        for processes in (1, 2) if number % 2 == 0 else (2, 1):
            print(f"pool processes: {processes}, round {number + 1} of {sizes.rounds}", file=sys.stderr)
            with site.worker(processes, bulk_processes=processes) as worker:
                times, output = site.run(worker, _MODEL, folder.name)
                rates[processes].append(sizes.scaling_rows / times.seconds)
                shutil.rmtree(output)
    return {
        "rows": sizes.scaling_rows,
        "one": statistics.median(rates[1]),
        "two": statistics.median(rates[2]),
        "ratio": statistics.median(two / single for single, two in zip(rates[1], rates[2], strict=True)),
        "every_rows_per_second": {"one": rates[1], "two": rates[2]},
    }
