"""Flower's memory while 100,000 jobs of a real worker pass it."""

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


def known(url: str) -> int:
    """How many jobs Flower has seen succeed."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as answer:
        said = answer.read().decode()
    counts = re.findall(r'^flower_events_total\{[^}]*type="task-succeeded"[^}]*\} (\S+)', said, re.MULTILINE)
    return int(sum(map(float, counts)))


def peak_mb(flower: Child) -> float:
    """The most memory the process ever took."""
    said = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{flower.process.pid}/status").read_text())
    assert said
    return int(said[1]) / 1024


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
            began = time.monotonic()
            with Client(server.url, check=False) as client:
                for sent in range(CHUNK, JOBS + 1, CHUNK):
                    client.submit_many("obedient", [hostile_models.instance()] * CHUNK)
                    # No more than Flower takes in, or Redis would cut it off and it would hear the rest only.
                    while known(url) < sent - 2 * CHUNK:
                        assert time.monotonic() - began < 1200
                        time.sleep(0.2)
            while (count := known(url)) < JOBS and time.monotonic() - began < 1200:
                time.sleep(0.5)
            peak = peak_mb(flower)
            print(f"{count:,} jobs, {peak:.0f} MB, {time.monotonic() - began:.0f} s")
            assert count == JOBS
            assert peak < LIMIT_MB
        finally:
            for child in reversed(children):
                child.stop()
