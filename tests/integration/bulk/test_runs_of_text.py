"""Whole runs over text and folders, with a real worker: every row once, in the format of its file."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.errors import HeadraceError
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import start_worker
from tests.support.bulk_site import BulkSite, add_bulk_model


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BulkSite]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "out").mkdir()
    (folder / "in").mkdir()
    with EmbeddedRedis() as redis_server:
        site = BulkSite(redis_server, add_bulk_model(folder), folder)
        with site.worker("--concurrency", "2"):
            yield site


def test_a_run_over_csv_and_json_lines_predicts_each_row_once_and_refuses_bad_ones_alone(site: BulkSite) -> None:
    folder = site.input / "text"
    (folder / "day=1").mkdir(parents=True)
    header = "number,action,seconds,note\n"
    rows = "".join(f'{number}.0,0,0,"a\nnote"\n' for number in range(300))
    (folder / "day=1" / "a.csv").write_text(header + rows + "many,0,0,x\n1,2\n")
    lines = "".join(f'{{"number": {number}, "action": 0, "seconds": 0}}\n' for number in range(300, 400))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress((lines + "nonsense\n").encode()))
    site.submit("text", input="in:text")
    progress = site.wait("text")
    assert (progress.state, progress.error) == ("success", None)
    assert (progress.rows_done, progress.rows_failed) == (403, 3)
    assert site.failures("text").reasons == {"bad input": 3}
    predictions: dict[int, float] = {}
    notes: set[str] = set()
    for path in sorted((site.output / "text").glob("part-*.csv")):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                assert row["day"] == "1"
                if not row["error"]:
                    predictions[int(float(row["number"]))] = float(row["prediction"])
                    notes.add(row["note"])
    [compressed] = (site.output / "text").glob("part-*.jsonl.gz")
    for line in gzip.decompress(compressed.read_bytes()).splitlines():
        row = json.loads(line)
        if row["error"] is None:
            predictions[row["number"]] = row["prediction"]
    assert predictions == {number: 2.0 * number for number in range(400)}
    assert notes == {"a\nnote"}


def test_a_worker_with_a_location_that_is_no_location_does_not_start(site: BulkSite, tmp_path: Path) -> None:
    with pytest.raises(HeadraceError, match="HEADRACE_LOCATIONS is name=folder:r"):
        start_worker(site.redis.url, site.models, tmp_path, HEADRACE_LOCATIONS="in=relative:r")
