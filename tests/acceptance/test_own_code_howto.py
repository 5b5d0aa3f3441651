"""The files and commands of docs/how-to/bring-your-own-code.md, from the script to a worker's answers."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from headrace import Client
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.store.store import Store
from tests.support import ROOT
from tests.support.claim_models import running_worker

PAGE = (ROOT / "docs" / "how-to" / "bring-your-own-code.md").read_text()
#: The class of the page, with another answer.
CHANGE = ("[0.05, 0.95]", "[0.4, 0.6]")

#: Prints the predictions of the model itself.
PREDICT = """
import joblib, pandas
print(joblib.load("churn.joblib").predict_proba(pandas.read_parquet("rows.parquet")).tolist())
"""


def _run(command: list[str], folder: Path, **environ: str) -> str:
    completed = subprocess.run(
        command, cwd=folder, env={**environ, "PATH": ""}, capture_output=True, text=True, timeout=120
    )
    assert completed.returncode == 0, completed.stderr
    return completed.stdout + completed.stderr


def _write_files(folder: Path) -> None:
    """Write the files of the page, which begin with their names."""
    for name, content in re.findall(r"^```python\n# (\S+)\n(.*?)^```", PAGE, re.M | re.S):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)


def _train_and_add(folder: Path, store: Path) -> Any:
    """Train the model in a process of its own, and add it with the page's command. Return its predictions."""
    _run([sys.executable, "train.py"], folder)
    (command,) = re.findall(r"^headrace models add .*$", PAGE, re.M)
    program = Path(sys.executable).with_name("headrace")
    output = _run([str(program), *shlex.split(command)[1:], "--store", str(store)], folder)
    assert "brings the modules mykit" in output
    assert "60 rows, largest difference 0" in output
    return eval(_run([sys.executable, "-c", PREDICT], folder))


def test_two_versions_with_different_modules_of_one_name_serve_in_one_worker(tmp_path: Path) -> None:
    store, folders, expected = tmp_path / "store", (tmp_path / "first", tmp_path / "second"), []
    for folder in folders:
        _write_files(folder)
        if folder is folders[1]:
            steps = folder / "mykit" / "steps.py"
            steps.write_text(steps.read_text().replace(*CHANGE))
        expected.append(_train_and_add(folder, store))
    assert expected[0] != expected[1]
    rows = pd.read_parquet(folders[0] / "rows.parquet").to_dict("records")
    assert [Store(store).read_manifest("churn", number).libraries["scikit-learn"] for number in "12"]
    with (
        EmbeddedRedis("--appendfsync", "no") as server,
        running_worker(url=server.url, models=store, folder=tmp_path, PYTHONPATH=""),
        Client(server.url, check=False) as client,
    ):
        for _ in range(2):
            for number, predictions in zip("12", expected, strict=True):
                job = client.submit("churn", instances=rows, method="predict_proba", version=number)
                answer = job.result(timeout=60).predictions
                assert all(
                    abs(a - b) < 1e-9
                    for row, other in zip(answer, predictions, strict=True)
                    for a, b in zip(row, other, strict=True)
                )
