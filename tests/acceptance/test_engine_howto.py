"""The programs of docs/how-to/predict-in-an-engine.md for the libraries of this environment.

`tests/engines` runs those for Ray, Dask, Spark and DuckDB.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.customers import predict_rows
from tests.support.engine_page import PROGRAMS, make_folder, read_scores


@pytest.mark.parametrize("name", ["in_this_process.py", "with_polars.py"])
def test_a_program_of_the_page_predicts_the_table(name: str, tmp_path: Path) -> None:
    table, environ = make_folder(tmp_path)
    command = [sys.executable, "-c", PROGRAMS[name]]
    completed = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60)
    assert completed.returncode == 0, completed.stderr
    expected = predict_rows(tmp_path / "models", "churn", table)
    if name == "in_this_process.py":
        assert completed.stdout.split()[:4] == ["customer", "plan", "prediction", "error"]
        assert f"{table['customer'][0]}" in completed.stdout
        return
    scores = read_scores(tmp_path)
    assert scores["prediction"].tolist() == expected
    assert scores["plan"].astype(object).fillna("").tolist() == table["plan"].astype(object).fillna("").tolist()
    assert scores["error"].isna().all()
