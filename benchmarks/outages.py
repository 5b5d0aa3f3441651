"""The time until workers run jobs again after Redis was away."""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.models import FLEET_STORE, make_fleet
from benchmarks.sizes import Sizes
from headrace import Client
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import start_workers

#: Seconds that workers have to become ready, and to wait for an outcome.
_READY_SECONDS, _TIMEOUT = 120.0, 90.0


def measure_outages(folder: Path, sizes: Sizes, seconds: float, outages: int) -> dict[str, Any]:
    """Kill Redis, start it again `seconds` later, and take the time until the first outcome of each worker.

    Each worker has a model of its own, so no worker's outcome hides that another is late. The time counts from
    when Redis accepts connections. A client that did not exist before submits the jobs.
    """
    row = json.loads((folder / "rows.json").read_text())[0]
    names = make_fleet(folder, sizes.outage_workers, prefix="outage")
    environs = {name: {"HEADRACE_SERVE": name} for name in names}
    first_outcomes: list[float] = []
    with EmbeddedRedis("--appendfsync", "everysec") as redis, contextlib.ExitStack() as stack:
        store = folder / FLEET_STORE
        for child in start_workers(
            redis.url, store, folder, environs, concurrency=1, ready_seconds=_READY_SECONDS
        ):
            stack.callback(child.stop)
        for number in range(outages):
            print(f"outage {number + 1} of {outages}: {seconds:g} s", file=sys.stderr)
            with Client(redis.url) as client:
                for name in names:
                    client.predict(name, row, timeout=_TIMEOUT)
            redis.kill()
            time.sleep(seconds)
            redis.start()
            returned = time.monotonic()
            with Client(redis.url, check=False) as client:
                jobs = [client.submit(name, row) for name in names]
                for job in client.as_completed(jobs, timeout=_TIMEOUT):
                    job.result()
                    first_outcomes.append(time.monotonic() - returned)
    return {
        "seconds_away": seconds,
        "outages": outages,
        "workers": len(names),
        "p50": statistics.median(first_outcomes),
        "max": max(first_outcomes),
        "every_first_outcome": first_outcomes,
    }
