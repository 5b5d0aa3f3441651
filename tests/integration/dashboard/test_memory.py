"""Flower's memory while a real worker runs 100,000 jobs."""

from __future__ import annotations

import re
import socket
import time
import urllib.request
from pathlib import Path

import pytest

from headrace import Client
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import Child, start_flower, start_worker
from headrace_worker.store.store import Store
from tests.support import hostile_models

JOBS, CHUNK, LIMIT_MB = 100_000, 2_000, 500


def succeeded_jobs(url: str) -> int:
    """Return the number of successful jobs that Flower has counted."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as response:
        metrics = response.read().decode()
    counts = re.findall(r'^flower_events_total\{[^}]*type="task-succeeded"[^}]*\} (\S+)', metrics, re.MULTILINE)
    return int(sum(map(float, counts)))


def peak_mb(flower: Child) -> float:
    """Return the peak memory of the process, in megabytes."""
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{flower.process.pid}/status").read_text())
    assert peak
    return int(peak[1]) / 1024


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_a_hundred_thousand_jobs_take_flower_less_than_500_mb(tmp_path: Path):
    hostile_models.add(Store(tmp_path / "models"))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    children: list[Child] = []
    with EmbeddedRedis("--appendfsync", "no") as server:
        try:
            flower = start_flower(server.url, tmp_path, port=port)
            children.append(flower)
            serving = hostile_models.SERVING
            children.append(start_worker(server.url, tmp_path / "models", tmp_path, concurrency=1, **serving))
            started = time.monotonic()
            with Client(server.url, check=False) as client:
                for submitted in range(CHUNK, JOBS + 1, CHUNK):
                    client.submit_many("obedient", [hostile_models.instance()] * CHUNK)
                    # Redis disconnects a subscriber that falls too far behind, and its events are lost.
                    while succeeded_jobs(url) < submitted - 2 * CHUNK:
                        assert time.monotonic() - started < 1200
                        time.sleep(0.2)
            while (count := succeeded_jobs(url)) < JOBS and time.monotonic() - started < 1200:
                time.sleep(0.5)
            peak = peak_mb(flower)
            print(f"{count:,} jobs, {peak:.0f} MB, {time.monotonic() - started:.0f} s")
            assert count == JOBS
            assert peak < LIMIT_MB
        finally:
            for child in reversed(children):
                child.stop()
