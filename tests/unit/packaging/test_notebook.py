"""One call in a notebook makes a version of a fitted model and the table it was fitted on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from headrace.errors import InvalidInput, ModelError
from headrace_worker import package
from headrace_worker.store.store import Store

RANDOM = np.random.default_rng(2)
TABLE = pd.DataFrame(
    {"plan <b>": np.array(["free", "gold"])[RANDOM.integers(0, 2, 150)], "age": RANDOM.integers(18, 80, 150)}
)
TARGET = (TABLE["age"] > 40).to_numpy()


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("HEADRACE_MODELS", str(tmp_path))
    return Store(tmp_path)


@pytest.fixture
def model() -> Any:
    columns = make_column_transformer((OneHotEncoder(), ["plan <b>"]), (StandardScaler(), ["age"]))
    return make_pipeline(columns, LogisticRegression()).fit(TABLE, TARGET)


def test_the_version_has_types_example_profile_and_proof_from_the_table(model: Any, store: Store) -> None:
    version = package(model, TABLE, name="churn", y=TARGET)
    manifest = store.read_manifest("churn", version.version)
    assert manifest == version.manifest
    assert [feature.dtype for feature in manifest.contract.input.features] == ["str", "int64"]  # type: ignore[union-attr]  # named
    assert len(manifest.example.instances) == 32
    assert manifest.profile is not None
    assert manifest.proof is not None
    assert manifest.proof.compared == 150
    assert version.score == model.score(TABLE, TARGET)


def test_it_shows_its_contract_and_checks(model: Any) -> None:
    version = package(model, TABLE, name="churn", y=TARGET)
    for text in (repr(version), version._repr_html_()):
        assert "churn@1" in text
        assert "the first 32 of 150 rows" in text
        assert "150 rows, largest difference 0" in text
    assert "plan &lt;b&gt;" in version._repr_html_()
    assert "plan <b>" not in version._repr_html_()


@pytest.mark.parametrize("form", ["lists", "array", "polars"])
def test_other_tables_are_taken(form: str) -> None:
    numbers = RANDOM.normal(size=(60, 3))
    table: Any = {"lists": numbers.tolist(), "array": numbers}.get(form)
    if form == "polars":
        table = polars.DataFrame(numbers, schema=["a", "b", "c"])
    model = LogisticRegression().fit(table, numbers[:, 0] > 0)
    proof = package(model, table, name="other").manifest.proof
    assert proof is not None
    assert proof.compared == 60
    assert proof.difference < 1e-12


def test_texts_are_taken() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = ["cold wet rain", "warm dry sun", "rain and wind", "sun and sand"] * 10
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [0, 1, 0, 1] * 10)
    assert package(model, texts, name="weather").manifest.proof is not None


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pd.DataFrame({"age": [1]}), "the example has no 'plan <b>'"),
        (TABLE[:0], "the table has no rows"),
        ([], "the table has no rows"),
        (None, "a table is a frame of pandas or polars, an array, or a list of instances; got a NoneType"),
        (
            TABLE.to_dict("list"),
            "a table is a frame of pandas or polars, an array, or a list of instances; got a dict",
        ),
        ("rows.csv", "a table is a frame of pandas or polars, an array, or a list of instances; got a str"),
    ],
)
def test_a_table_that_is_not_the_models_is_refused(table: Any, message: str, model: Any, store: Store) -> None:
    with pytest.raises(ModelError, match=message):
        package(model, table, name="churn")
    assert store.models() == []


@pytest.mark.parametrize("model", [LogisticRegression, {"coef": 1}, None])
def test_an_object_that_is_no_fitted_model_is_refused(model: Any) -> None:
    with pytest.raises(ModelError, match="is no fitted model"):
        package(model, TABLE, name="churn")


def test_a_version_cannot_be_canary_and_shadow(model: Any) -> None:
    with pytest.raises(InvalidInput, match="exclude each other"):
        package(model, TABLE, name="churn").promote(canary=0.1, shadow=True)


@pytest.mark.parametrize("targets", [TARGET[:10], [None] * 150])
def test_targets_of_another_table_are_refused_before_anything_is_stored(
    targets: Any, model: Any, store: Store
) -> None:
    with pytest.raises(InvalidInput, match="the model cannot be scored with this table and y"):
        package(model, TABLE, name="churn", y=targets)
    assert store.models() == []


def test_more_rows_than_are_used_are_said() -> None:
    numbers = RANDOM.normal(size=(10_001, 1))
    version = package(
        LogisticRegression().fit(numbers, numbers[:, 0] > 0), numbers, name="large", runtime="sklearn"
    )
    assert "the first 32 of 10,001 rows" in repr(version)
    assert "only the first 10,000 rows of the table were used and compared" in repr(version)
