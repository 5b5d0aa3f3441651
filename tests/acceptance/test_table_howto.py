"""The commands, the script and the Python of docs/how-to/predict-a-table.md run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import joblib
import msgspec
import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet
from sklearn.linear_model import LogisticRegression

from headrace import Client
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import start_worker
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store
from tests.support import ROOT

PAGE = (ROOT / "docs" / "how-to" / "predict-a-table.md").read_text(encoding="utf-8")
SHELL = re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S)
PYTHON = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
ROWS = 1000


def make_table() -> pd.DataFrame:
    ages = np.arange(ROWS, dtype=float) % 70 + 20
    return pd.DataFrame({"customer": [f"c{number}" for number in range(ROWS)], "age": ages, "income": ages * 1000})


def write_night(folder: Path, night: str, table: pd.DataFrame) -> None:
    (folder / "lake" / night).mkdir(parents=True)
    table.to_parquet(folder / "lake" / night / "a.parquet")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """Two nights of customers, a model `churn`, and a worker with the locations `in` and `out`."""
    folder = tmp_path_factory.mktemp("table")
    table = make_table()
    model = LogisticRegression().fit(table[["age", "income"]], table["age"] > 45)
    joblib.dump(model, folder / "churn.joblib")
    (folder / "example.json").write_bytes(msgspec.json.encode(table[["age", "income"]][:3].to_dict("records")))
    package(
        Store(folder / "models"),
        folder / "churn.joblib",
        name="churn",
        example=folder / "example.json",
        trust_pickle=True,
    )
    write_night(folder, "2026-11-29", table)
    write_night(folder, "2026-11-30", table.assign(age=table["age"].where(table["customer"] != "c7")))
    (folder / "scores").mkdir()
    locations = f"in={folder}/lake:r,out={folder}/scores:w"
    with EmbeddedRedis("--appendfsync", "no") as server:
        worker = start_worker(server.url, folder / "models", folder, concurrency=2, HEADRACE_LOCATIONS=locations)
        try:
            yield folder, server.url
        finally:
            worker.stop()


def run_shell(site: tuple[Path, str], commands: str) -> subprocess.CompletedProcess[str]:
    folder, url = site
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["sh", "-ec", commands],
        cwd=folder,
        env={**os.environ, "PATH": path, "HEADRACE_REDIS_URL": url},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.timeout(300)
def test_the_page_runs_from_top_to_bottom(
    site: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    by_hand, script, accepting, examining = SHELL
    folder, url = site

    first = run_shell(site, by_hand)
    assert first.returncode == 0, first.stderr
    status = re.search(r"^\$ headrace bulk status .*\n((?:.*\n)+?)```", PAGE, re.M)
    assert status
    shown = first.stdout.partition("\n")[2]  # behind the name that `submit` prints
    assert [line.split()[0] for line in shown.splitlines()] == [line.split()[0] for line in status[1].splitlines()]
    assert all(len(line) <= 80 for line in shown.splitlines())
    output = parquet.read_table(folder / "scores" / "2026-11-29" / "part-00000.parquet").to_pandas()
    assert list(output["customer"]) == list(make_table()["customer"])
    assert set(output.columns) == {"customer", "age", "income", "prediction", "error"}

    assert run_shell(site, script).returncode == 0
    night = run_shell(site, "./nightly.sh 2026-11-30")
    assert night.returncode == 3, night.stderr
    assert "1,000 rows predicted by churn@1" in night.stderr
    accepted = run_shell(site, accepting)
    assert accepted.returncode == 0, accepted.stderr
    assert run_shell(site, "./nightly.sh 2026-12-24").returncode == 3  # no such folder
    refused = run_shell(site, accepting.replace("2026-11-30", "2026-12-24"))
    assert refused.returncode == 1

    examined = run_shell(site, examining)
    assert examined.returncode == 0, examined.stderr
    assert re.search(r"^ +1  bad input$", examined.stdout, re.M)
    errors = parquet.read_table(folder / "scores" / "2026-11-30" / "errors" / "part-00000.parquet").to_pylist()
    assert [(row["key"], row["row"]) for row in errors] == [("c7", 8)]

    airflow, client = PYTHON
    assert "/opt/scores/nightly.sh {{ ds }}" in airflow
    compile(airflow, "dag.py", "exec")
    monkeypatch.setenv("HEADRACE_REDIS_URL", url)
    exec(client, {})  # the page's own lines
    assert capsys.readouterr().out == "1,000 rows, 0 failed\n"

    with Client(url) as finished:
        states = {progress.run.name: progress.state for progress in finished.bulk_runs()}
    assert states == {
        "churn-2026-11-29": "success",
        "churn-2026-11-30": "success",
        "churn-2026-12-24": "failure",
    }
