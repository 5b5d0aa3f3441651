"""Latencies of single rows on an idle worker, and while the same worker works for a run."""

from __future__ import annotations

import sys
import time
from typing import Any

from benchmarks.bulk import tables
from benchmarks.bulk.models import ONLINE
from benchmarks.bulk.site import RunFailed, Site
from benchmarks.bulk.sizes import Sizes
from benchmarks.load import Load
from headrace import Client

#: The model of the run.
_MODEL = "forest"
#: Seconds between two single rows, and seconds after a start that are not measured.
_PAUSE, _SETTLE_SECONDS = 0.02, 1.0


def measure_online(site: Site, sizes: Sizes) -> dict[str, Any]:
    """Return the latencies without and with a run, in milliseconds, and their ratios.

    The worker has two pool processes, and reserves one for single rows, as it does by default.
    """
    print("single rows, without and with a run", file=sys.stderr)
    folder = site.inputs / "online"
    tables.write_parquet(folder, "numbers", sizes.online_rows, files=sizes.files, group_rows=sizes.group_rows)
    row = [0.5] * len(tables.NUMBERS)
    name = site.next_name("online")
    with (
        site.worker(2),
        Client(site.server.url) as client,
        Load(site.server.url, ONLINE, row, clients=1, pause=_PAUSE) as load,
    ):
        time.sleep(_SETTLE_SECONDS)
        idle_from = time.monotonic()
        time.sleep(sizes.online_seconds)
        idle_to = time.monotonic()
        run = client.bulk(_MODEL, f"in:{folder.name}", f"out:{name}", name=name)
        while not (before := run.status()).chunks_done:
            if before.state in {"failure", "cancelled"}:
                raise RunFailed(f"{name} ended as {before.state}: {before.error}")
            time.sleep(0.1)
        busy_from = time.monotonic()
        time.sleep(sizes.online_seconds)
        busy_to = time.monotonic()
        after = run.status()
        run.cancel()
        if after.state != "running":
            raise RunFailed(f"{name} was {after.state} before the measurement ended: it needs more rows")
    idle, busy = load.latencies(idle_from, idle_to), load.latencies(busy_from, busy_to)
    return {
        "seconds": sizes.online_seconds,
        "failures": load.failures,
        "idle_ms": idle,
        "busy_ms": busy,
        "p50_ratio": busy["p50"] / idle["p50"],
        "p99_ratio": busy["p99"] / idle["p99"],
        "run_rows_per_second": (after.rows_done - before.rows_done) / (busy_to - busy_from),
    }
