"""Memory of a worker, for a table and for one many times as long; of a client; and what a run leaves in Redis."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.bulk import tables
from benchmarks.bulk.outputs import WrongOutput
from benchmarks.bulk.processes import peak_mb, private_mb
from benchmarks.bulk.site import Site
from benchmarks.bulk.sizes import Sizes

_MODEL = "logistic"
_PROCESSES = 2
_TIMEOUT = 1800
_SAMPLE_SECONDS = 0.1
#: Seconds after which Redis has freed what a run no longer needs.
_SETTLE_SECONDS = 2.0


def measure_memory(site: Site, sizes: Sizes) -> dict[str, Any]:
    """Return megabytes of workers and of the command that submits and waits, and bytes that stay in Redis."""
    rows = sizes.rows[_MODEL]
    small = site.inputs / "memory"
    tables.write_parquet(small, "numbers", rows, files=sizes.files, group_rows=sizes.group_rows)
    large = tables.link_repeatedly(small, site.inputs / "memory-large", sizes.memory_factor)
    peaks = []
    for folder, count in ((small, rows), (large, rows * sizes.memory_factor)):
        print(f"memory, {count:,} rows", file=sys.stderr)
        site.server.reset()
        with site.worker(_PROCESSES, bulk_processes=_PROCESSES) as worker:
            site.run(worker, _MODEL, small.name, key=tables.KEY, keep=())
            before = site.server.memory_bytes()
            with _peak_memory(worker.process.pid) as megabytes:
                client = _run_by_command(site, folder.name)
            time.sleep(_SETTLE_SECONDS)
            left = site.server.memory_bytes() - before
        _check_rows(site.outputs / folder.name, count)
        peaks.append({"rows": count, "worker_mb": max(megabytes), "client_mb": client, "redis_bytes": left})
    return {"small": peaks[0], "large": peaks[1], "growth_mb": peaks[1]["worker_mb"] - peaks[0]["worker_mb"]}


@contextlib.contextmanager
def _peak_memory(pid: int) -> Iterator[list[float]]:
    """Yield a list that receives the memory of a worker and its pool, in megabytes, until the block ends."""
    megabytes, stop = [private_mb(pid)], threading.Event()

    def sample() -> None:
        while not stop.wait(_SAMPLE_SECONDS):
            megabytes.append(private_mb(pid))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield megabytes
    finally:
        stop.set()
        thread.join()


def _run_by_command(site: Site, folder: str) -> float:
    """Submit a run by the command and wait for it; return the larger memory of both commands in megabytes."""
    submit = ["submit", _MODEL, f"in:{folder}", "-o", f"out:{folder}", "--name", folder, "--key", tables.KEY]
    return max(run_command(site, [*submit, "--keep", "none"]), run_command(site, ["wait", folder]))


def run_command(site: Site, arguments: list[str]) -> float:
    """Run `headrace bulk` with arguments; return its largest memory in megabytes. Raises RuntimeError."""
    largest, deadline = 0.0, time.monotonic() + _TIMEOUT
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "headrace.cli", "bulk", *arguments],
            env={**os.environ, "HEADRACE_REDIS_URL": site.server.url},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        while process.returncode is None:
            # Not `ru_maxrss`: Linux counts the memory of the process that started it, from before its `exec`.
            largest = max(largest, peak_mb(process.pid))
            if time.monotonic() > deadline:
                process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_SAMPLE_SECONDS)
        errors.seek(0)
        message = errors.read().decode(errors="replace")
    if process.returncode:
        raise RuntimeError(f"headrace bulk {arguments[0]} failed: {message[-300:]}")
    return largest


def _check_rows(folder: Path, count: int) -> None:
    rows = sum(pq.ParquetFile(file).metadata.num_rows for file in folder.glob("*.parquet"))
    if rows != count:
        raise WrongOutput(f"{folder} has {rows:,} rows instead of {count:,}")
    shutil.rmtree(folder)
