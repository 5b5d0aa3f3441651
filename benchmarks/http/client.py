"""A client without HTTP: processor time of `AsyncClient.predict`, and the idle round trip of `Client.predict`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.http.concurrent import Config
from benchmarks.http.models import METHOD
from benchmarks.http.running import Site, wait_until_it_predicts
from benchmarks.http.sizes import Sizes
from headrace import Client

_ROOT = Path(__file__).parents[2]
_MODEL = "logistic"
_TIMEOUT = 600
#: Pauses between round trips, so that each finds the worker idle.
_PAUSE_SECONDS = 0.002


def measure_client(site: Site, sizes: Sizes) -> dict[str, Any]:
    """Return the processor time of a prediction, the number of calls that share it, and the round trip."""
    print("the client without HTTP", file=sys.stderr)
    rows = site.models.rows.tolist()
    with site.gateway() as server:
        wait_until_it_predicts(site, server)
        site.server.client.config_resetstat()
        config = Config(site.server.url, _MODEL, METHOD, rows, sizes.connections, sizes.predictions)
        completed = subprocess.run(
            [sys.executable, "-m", "benchmarks.http.concurrent"],
            cwd=_ROOT,
            input=json.dumps(config._asdict()),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=True,
        )
        measured: dict[str, Any] = json.loads(completed.stdout)
        pushes = site.server.client.info("commandstats")["cmdstat_lpush"]["calls"]
        return measured | {
            "tasks": sizes.connections,
            "jobs_per_call": measured["predictions"] / pushes,
            "round_trip_ms": _round_trip(site.server.url, rows, max(20, sizes.predictions // 50)),
        }


def _round_trip(url: str, rows: list[list[float]], count: int) -> float:
    """Return the median of idle round trips in milliseconds."""
    seconds = []
    with Client(url) as client:
        for number in range(count + 10):
            started = time.perf_counter()
            client.predict(_MODEL, rows[number % len(rows)], method=METHOD)
            seconds.append(time.perf_counter() - started)
            time.sleep(_PAUSE_SECONDS)
    return 1000 * sorted(seconds[10:])[count // 2]
