"""The first commands name a model that is there, with its own example."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import skops.io
from sklearn.dummy import DummyRegressor

from headrace_worker.local.first_commands import describe_first_commands
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store
from tests.support.constant_models import add_constant

API = "http://127.0.0.1:8080"


def test_a_model_of_the_store_is_predicted_with_its_example(tmp_path: Path):
    store = Store(tmp_path / "models")
    add_constant(store, tmp_path, "four", 4.0)
    example = store.read_manifest("four", "1").example.instances[0]
    submit, over_http = re.findall(r"^  (\w.*)$", describe_first_commands(store, API, tmp_path), re.MULTILINE)
    assert shlex.split(submit) == ["headrace", "submit", "four", json.dumps(example), "--wait"]
    curl = shlex.split(over_http)
    assert curl[1] == f"{API}/v1/models/four:predict"
    assert json.loads(curl[-1]) == {"instances": [example]}


def test_a_long_example_is_in_a_file(tmp_path: Path):
    model = DummyRegressor(strategy="constant", constant=4.0).fit([[0.0] * 99], [4.0])
    skops.io.dump(model, tmp_path / "wide.skops")
    (tmp_path / "example.json").write_text(json.dumps([[1.0] * 99]))
    store = Store(tmp_path / "models")
    package(store, tmp_path / "wide.skops", name="wide", example=tmp_path / "example.json")
    submit = shlex.split(describe_first_commands(store, API, tmp_path))
    assert submit == ["headrace", "submit", "wide", str(tmp_path / "wide.json"), "--wait"]
    assert json.loads((tmp_path / "wide.json").read_text()) == [1.0] * 99


def test_without_a_model_the_first_command_adds_one(tmp_path: Path):
    assert describe_first_commands(Store(tmp_path / "my models"), API, tmp_path) == (
        f"  headrace models add MODEL.skops --name NAME --example ROWS.csv --store '{tmp_path}/my models'"
    )
