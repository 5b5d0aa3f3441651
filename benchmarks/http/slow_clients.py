"""Latencies of a load alone, beside idle event streams, and beside clients that send a byte a second."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.http.comparison import run_load
from benchmarks.http.held import Config
from benchmarks.http.models import METHOD
from benchmarks.http.running import Server, Site, WayFailed, wait_until_it_predicts
from benchmarks.http.sizes import Sizes
from headrace import Client

_ROOT = Path(__file__).parents[2]
_MODEL = "logistic"
#: Seconds for which the job of the streams has no outcome.
_DELAY = 3600.0
_STREAMS, _SLOW = "streams", "slow_requests"


def measure_slow_clients(site: Site, sizes: Sizes) -> dict[str, Any]:
    """Return the p99 of each load in milliseconds, and its ratio to the load alone in the same round.

    What cannot be measured is left out, with the reason.
    """
    print("slow clients", file=sys.stderr)
    rows = site.models.rows.tolist()
    alone: list[float] = []
    ratios: dict[str, list[float]] = {_STREAMS: [], _SLOW: []}
    left_out: dict[str, str] = {}
    with site.gateway() as server, Client(site.server.url) as client:
        wait_until_it_predicts(site, server)
        job = client.submit(_MODEL, rows[0], method=METHOD, delay=_DELAY)
        streams = Config(server.port, f"/v1/jobs/{job.id}/events", sizes.streams, 0)
        slow = Config(server.port, server.path.format(model=_MODEL), 0, sizes.slow_requests)
        for _ in range(sizes.rounds):
            alone.append(_p99(server, rows, sizes))
            for name, config in ((_STREAMS, streams), (_SLOW, slow)):
                if name in left_out:
                    continue
                try:
                    with _held(config):
                        ratios[name].append(_p99(server, rows, sizes) / alone[-1])
                except WayFailed as reason:
                    left_out[name] = str(reason)
        job.cancel()
    return {
        "streams": sizes.streams,
        "slow_requests": sizes.slow_requests,
        "alone_p99_ms": median(alone),
        "p99_ratios": {name: median(values) for name, values in ratios.items() if values},
        "left_out": left_out,
    }


def _p99(server: Server, rows: list[list[float]], sizes: Sizes) -> float:
    run_load(server, _MODEL, rows, sizes.connections, sizes.warm_up_seconds)
    return float(run_load(server, _MODEL, rows, sizes.connections, sizes.seconds)["p99_ms"])


@contextlib.contextmanager
def _held(config: Config) -> Iterator[None]:
    """Hold connections open for the time of the block. Raises WayFailed if the streams are not answered."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.http.held", json.dumps(config._asdict())],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise WayFailed("the connections could not be opened")
        statuses = json.loads(line)
        if config.streams and statuses != ["200"]:
            raise WayFailed(f"GET {config.path.rpartition('/')[2]} was answered with {', '.join(statuses)}")
        yield
    finally:
        process.stdin.close()
        process.stdout.close()
        process.terminate()
        process.wait()
