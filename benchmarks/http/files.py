"""A CSV file by `:batch` over HTTP, and by `headrace batch`, in turns."""

from __future__ import annotations

import contextlib
import csv
import http.client
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bulk import tables
from benchmarks.http.running import Server, Site, WayFailed, wait_until_it_predicts
from benchmarks.http.sizes import Sizes

_MODEL = "logistic"
_TIMEOUT = 1800
BATCH, COMMAND = "batch", "command"


def measure_files(site: Site, sizes: Sizes) -> dict[str, Any]:
    """Return the rows a second of both ways as medians, and the ratio of each round's.

    What cannot be measured is left out, with the reason. The seconds of the command include its start.
    """
    print(f"a CSV file of {sizes.csv_rows:,} rows", file=sys.stderr)
    file = _write_csv(site, sizes.csv_rows)
    rates: dict[str, list[float]] = {BATCH: [], COMMAND: []}
    left_out: dict[str, str] = {}
    with site.gateway() as server:
        wait_until_it_predicts(site, server)
        for _ in range(sizes.rounds):
            rates[COMMAND].append(sizes.csv_rows / _run_command(site, file, sizes.csv_rows))
            try:
                rates[BATCH].append(sizes.csv_rows / _upload(server, file, sizes.csv_rows))
            except WayFailed as reason:
                left_out[BATCH] = str(reason)
                break
    return {
        "rows": sizes.csv_rows,
        "rows_per_second": {name: median(values) for name, values in rates.items() if values},
        "ratio": median(a / b for a, b in zip(rates[BATCH], rates[COMMAND], strict=False))
        if rates[BATCH]
        else None,
        "left_out": left_out,
    }


def _write_csv(site: Site, rows: int) -> Path:
    """Write rows of the model, without a header and a key: its contract has no names."""
    values = site.models.rows.tolist()
    file = site.folder / "table.csv"
    with file.open("w", newline="") as output:
        writer = csv.writer(output)
        writer.writerow(tables.NUMBERS)
        for number in range(rows):
            writer.writerow(values[number % len(values)])
    return file


def _run_command(site: Site, file: Path, rows: int) -> float:
    """Predict a file with the command; return its seconds."""
    target = site.folder / "predicted.csv"
    target.unlink(missing_ok=True)
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "headrace.cli", "batch", _MODEL, str(file), "-o", str(target)],
        env={**os.environ, "HEADRACE_REDIS_URL": site.server.url},
        check=True,
        capture_output=True,
        timeout=_TIMEOUT,
    )
    seconds = time.perf_counter() - started
    with target.open() as written:
        if sum(1 for _ in written) != rows + 1:
            raise ValueError("the command wrote another number of rows")
    return seconds


def _upload(server: Server, file: Path, rows: int) -> float:
    """Predict a file by `:batch`; return the seconds until the last row. Raises WayFailed."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=_TIMEOUT)
    with contextlib.closing(connection), file.open("rb") as body:
        started = time.perf_counter()
        headers = {"Content-Type": "text/csv", "Content-Length": str(file.stat().st_size)}
        connection.request("POST", f"/v1/models/{_MODEL}:batch", body, headers)
        answer = connection.getresponse()
        text = answer.read()
        seconds = time.perf_counter() - started
    if answer.status != 200:
        raise WayFailed(f"`:batch` answered {answer.status}")
    if (lines := text.count(b"\n")) != rows + 1:
        raise WayFailed(f"`:batch` answered with {lines} lines for {rows} rows")
    return seconds
