"""A store in S3: other processes load the version with the credentials of their own environment."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from headrace_worker.packaging.package import package
from headrace_worker.packaging.table import read_table
from headrace_worker.store.store import Store
from headrace_worker.udf import Predictor
from tests.support.s3_server import BUCKET, S3, s3, s3_of_module

__all__ = ["s3", "s3_of_module"]  # fixtures

TABLE = pd.DataFrame({"age": np.arange(40.0)})
PROGRAM = """
import pickle, sys
import pandas as pd
score = pickle.load(open(sys.argv[1], "rb"))
print(score(pd.DataFrame({"age": [5.0, 35.0, None]})).to_json(orient="values"))
"""


def test_a_process_with_other_credentials_loads_the_pinned_version(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"s3://{BUCKET}/models"
    monkeypatch.setenv("HEADRACE_MODEL_CACHE", str(tmp_path / "cache"))
    model = LogisticRegression().fit(TABLE, TABLE["age"] > 20)
    package(Store(url), model, name="churn", example=read_table(TABLE))
    data = pickle.dumps(Predictor("churn", keep=[], store=url))
    assert b"testing" not in data
    (tmp_path / "score.pickle").write_bytes(data)
    environ = {**os.environ, "AWS_ACCESS_KEY_ID": "another", "HEADRACE_MODEL_CACHE": str(tmp_path / "other")}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "score.pickle")]
    completed = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert completed.returncode == 0, completed.stderr
    assert completed.stdout.startswith("[[false,null],[true,null],[null,\"bad input: feature 'age'")
    s3.stop()
    try:
        environ["HEADRACE_MODEL_CACHE"] = str(tmp_path / "empty")
        completed = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
        assert "StoreUnavailable" in completed.stderr
    finally:
        s3.start()
