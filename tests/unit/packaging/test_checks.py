"""A version predicts as its original does, and the answer of a row does not depend on the other rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from headrace.errors import ModelError
from headrace_worker.manifest import Limits
from headrace_worker.packaging.package import package
from headrace_worker.packaging.table import read_table
from headrace_worker.store.store import Store

RANDOM = np.random.default_rng(1)
TABLE = pd.DataFrame(
    {"plan": np.array(["free", "gold", "team"])[RANDOM.integers(0, 3, 30)], "age": RANDOM.normal(40, 9, 30)}
)
TARGET = (TABLE["age"] > 40) ^ (TABLE["plan"] == "gold")


def _fit(step: Any) -> Any:
    return make_pipeline(FunctionTransformer(step), LogisticRegression(max_iter=10_000)).fit(TABLE, TARGET)


def number_by_batch(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(plan=frame["plan"].astype("category").cat.codes)


def dummies_by_batch(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.get_dummies(frame, columns=["plan"], drop_first=True).reindex(
        columns=["age", "plan_gold", "plan_team"], fill_value=0
    )


def scale_by_batch(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"age": (frame["age"] - frame["age"].mean()) / (frame["age"].std(ddof=0) or 1)})


@pytest.mark.parametrize("step", [number_by_batch, dummies_by_batch, scale_by_batch])
def test_a_model_that_computes_with_the_other_rows_of_a_call_is_refused(step: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="rows another answer alone or in another order than together") as refusal:
        package(Store(tmp_path), _fit(step), name="model", example=read_table(TABLE), trust_pickle=True)
    assert "--alone" in str(refusal.value)
    assert Store(tmp_path).models() == []


@pytest.mark.parametrize("limits", [Limits(alone=True), Limits(max_batch_instances=1)])
def test_such_a_model_is_added_for_jobs_without_company(limits: Limits, tmp_path: Path) -> None:
    estimator = _fit(number_by_batch)
    table = read_table(TABLE)
    package(Store(tmp_path), estimator, name="model", example=table, trust_pickle=True, limits=limits)
    assert Store(tmp_path).latest("model") == "1"


def _encoder(target: Any = TARGET) -> Any:
    columns = make_column_transformer((OneHotEncoder(), ["plan"]), (StandardScaler(), ["age"]))
    return make_pipeline(columns, LogisticRegression()).fit(TABLE, target)


def test_the_model_itself_predicts_a_typed_table_for_comparison(tmp_path: Path) -> None:
    manifest = package(Store(tmp_path), _encoder(), name="model", example=read_table(TABLE))
    assert manifest.proof is not None
    assert (manifest.proof.compared, manifest.proof.difference) == (30, 0.0)


def test_without_a_typed_table_and_expected_predictions_nothing_is_compared(tmp_path: Path) -> None:
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps(TABLE.to_dict("records")))
    assert package(Store(tmp_path / "store"), _encoder(), name="model", example=rows).proof is None


@pytest.mark.parametrize("form", ["column", "csv", "json"])
def test_expected_predictions_are_compared(form: str, tmp_path: Path) -> None:
    estimator, rows = _encoder(TARGET.astype(int)), tmp_path / "rows.csv"
    predictions = estimator.predict(TABLE)
    table = TABLE.assign(predicted=predictions) if form == "column" else TABLE
    table.to_csv(rows, index=False)
    expected: Any = "predicted"
    if form == "csv":
        expected = tmp_path / "expected.csv"
        pd.DataFrame({"prediction": predictions}).to_csv(expected, index=False)
    elif form == "json":
        expected = tmp_path / "expected.json"
        expected.write_text(json.dumps(predictions.tolist()))
    manifest = package(Store(tmp_path / "store"), estimator, name="model", example=rows, expected=expected)
    assert manifest.proof is not None
    assert manifest.proof.compared == 30
    assert [feature.name for feature in manifest.contract.input.features] == ["plan", "age"]  # type: ignore[union-attr]  # named


def test_predictions_that_differ_from_the_expected_ones_refuse_the_version(tmp_path: Path) -> None:
    rows, expected = tmp_path / "rows.csv", tmp_path / "expected.json"
    TABLE.to_csv(rows, index=False)
    predictions = _encoder().predict(TABLE).tolist()
    expected.write_text(json.dumps([not predictions[0], *predictions[1:]]))
    with pytest.raises(ModelError, match="predict differs from the expected predictions for 1 of 30 rows; row 0"):
        package(Store(tmp_path / "store"), _encoder(), name="model", example=rows, expected=expected)
    expected.write_text(json.dumps(predictions[:7]))
    with pytest.raises(ModelError, match="has 7 predictions for 30 instances"):
        package(Store(tmp_path / "store"), _encoder(), name="model", example=rows, expected=expected)


def test_a_column_of_predictions_that_is_not_there_is_named(tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    TABLE.assign(predicted=1).to_csv(rows, index=False)
    with pytest.raises(ModelError, match="no column 'predictd' of predictions; did you mean 'predicted'"):
        package(Store(tmp_path / "store"), _encoder(), name="model", example=rows, expected="predictd")
