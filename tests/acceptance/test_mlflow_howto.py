"""The commands of docs/how-to/use-mlflow.md, on folders in the form that MLflow 3.17 writes."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skops.io
from click.testing import CliRunner
from sklearn.linear_model import LogisticRegression

from headrace import Client
from headrace_worker.cli.models import models
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support import ROOT
from tests.support.claim_models import running_worker

PAGE = (ROOT / "docs" / "how-to" / "use-mlflow.md").read_text()
TABLE = pd.DataFrame({"age": np.arange(40.0), "visits": np.arange(40) % 3})
TARGET = (TABLE["age"] > 20).astype(int)
DESCRIPTION = """\
flavors:
  python_function:
    code: code
    loader_module: mlflow.sklearn
    model_path: model.skops
  sklearn:
    code: code
    pickled_model: model.skops
    serialization_format: skops
mlflow_version: 3.17.2
saved_input_example_info:
  artifact_path: input_example.json
  pandas_orient: split
signature:
  inputs: '[{"type": "double", "name": "age", "required": true}, {"type": "long", "name":
    "visits", "required": true}]'
"""


def _write_folder(folder: Path) -> LogisticRegression:
    """Write a model as MLflow does, with a module that it was logged with."""
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "reports.py").write_text("TITLE = 'churn'\n")
    (folder / "MLmodel").write_text(DESCRIPTION)
    (folder / "input_example.json").write_text(json.dumps({"columns": ["age", "visits"], "data": [[20.0, 1]]}))
    estimator = LogisticRegression().fit(TABLE, TARGET)
    skops.io.dump(estimator, folder / "model.skops")
    return estimator


def test_the_commands_add_the_folder_and_a_worker_without_trust_serves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = tmp_path / "store"
    first, second = re.findall(r"^headrace models add .*$", PAGE, re.M)
    estimator = _write_folder(Path("mlruns/1/models/m-3f.../artifacts"))
    _write_folder(Path("model"))
    for command, brings_code in ((first, False), (second, True)):
        completed = CliRunner().invoke(models, [*shlex.split(command)[2:], "--store", str(store)])
        assert completed.exit_code == 0, completed.output
        assert ("brings the modules reports" in completed.output) == brings_code
    with (
        EmbeddedRedis("--appendfsync", "no") as server,
        running_worker(url=server.url, models=store, folder=tmp_path, HEADRACE_TRUST_PICKLE="false"),
        Client(server.url) as client,
    ):
        rows = TABLE.to_dict("records")
        prediction = client.submit("churn", instances=rows).result(timeout=60)
    # The second version has modules, which this worker does not trust. The first one serves.
    assert prediction.version == "1"
    assert prediction.predictions == estimator.predict(TABLE).tolist()
