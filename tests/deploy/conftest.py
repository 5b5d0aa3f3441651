"""The stack that all drills share; each drill restores its state."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

import pandas as pd
import pytest
from palmerpenguins import load_penguins
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder
from skops import io as skops

from tests.deploy.stack import Stack, readme_commands


@pytest.fixture(scope="session")
def table() -> pd.DataFrame:
    """Return the penguins table: texts and numbers, some missing."""
    return load_penguins().drop(columns=["species", "year"])


@pytest.fixture(scope="session")
def model(table: pd.DataFrame) -> Pipeline:
    """Train a pipeline on mixed and missing values."""
    texts = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    columns = make_column_transformer(
        (SimpleImputer(), make_column_selector(dtype_include="number")),
        (texts, make_column_selector(dtype_exclude="number")),
    )
    fitted = make_pipeline(columns, RandomForestClassifier(n_estimators=20, random_state=0))
    return fitted.fit(table, load_penguins()["species"])


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, model: Pipeline, table: pd.DataFrame) -> Iterator[Stack]:
    """Start the stack by the commands of the README; the last command is left to its test."""
    if shutil.which("docker") is None or subprocess.run(["docker", "info"], capture_output=True).returncode != 0:
        pytest.fail("these tests need a running Docker engine")
    folder = tmp_path_factory.mktemp("clone")
    for path in (folder.parent, folder):
        path.chmod(0o755)  # pytest makes its folders private, but containers run as other users
    stack = Stack(folder)
    stack.clone()
    skops.dump(model, folder / "churn.skops")
    table.to_csv(folder / "customers.csv", index=False)
    table.dropna().head(3).to_json(folder / "example.json", orient="records")
    refused = stack.run("docker-compose up -d")
    assert refused.returncode != 0
    assert "run `make secrets` first" in refused.stderr
    stack("headrace models add churn.skops --name churn --example example.json")
    try:
        for command in readme_commands()[1:-1]:
            stack(command, timeout=600)
        stack.wait_for("two workers are ready", lambda: stack.healthy() == 2)
        yield stack
    finally:
        stack.down()
