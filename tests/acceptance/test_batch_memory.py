"""Test that the memory of a batch does not grow with its file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.stock_worker import publish_stock_contract, start_stock_worker

_PROGRAM = """
import resource, sys
sys.argv = ["headrace", *sys.argv[1:]]
from headrace.cli import main
try:
    main()
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


def measure_peak(rows: int, url: str, folder: Path) -> float:
    """Return the peak memory of the client of a batch with this number of rows, in MB."""
    source, target = folder / f"{rows}.csv", folder / f"{rows}.out.csv"
    with source.open("w") as file:
        file.write("id,age,plan,comment\n")
        file.writelines(f"{number},{number % 90},gold,a comment that is carried along\n" for number in range(rows))
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            _PROGRAM,
            "batch",
            "churn",
            str(source),
            "-o",
            str(target),
            "--json",
            "--url",
            url,
        ],
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ,
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["rows"] == rows
    with target.open() as written:
        assert sum(1 for _ in written) == rows + 1
    return int(result.stderr.splitlines()[-1]) / 1024


@pytest.mark.long
@pytest.mark.timeout(600)
def test_memory_stays_under_150_mb_and_does_not_grow_with_the_rows(redis_url, tmp_path):
    publish_stock_contract(redis_url)
    with start_stock_worker(redis_url, tmp_path / "log"):
        small, large = (measure_peak(rows, redis_url, tmp_path) for rows in (100_000, 300_000))
    assert small < 150
    assert large < small + 10
