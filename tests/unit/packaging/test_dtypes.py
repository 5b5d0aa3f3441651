"""A model gets columns of the types it was fitted on, whatever the form of the example."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from headrace.catalog.contract import Array, Feature, Named
from headrace.errors import InvalidInput, ModelError
from headrace_worker.manifest import Manifest
from headrace_worker.models.loader import LoadedModel, load
from headrace_worker.packaging.package import package
from headrace_worker.packaging.table import read_table
from headrace_worker.runtimes.columns import make_column_builder
from headrace_worker.store.store import Store

RANDOM = np.random.default_rng(0)
TABLE = pd.DataFrame(
    {
        "code": RANDOM.integers(100, 104, 40),
        "plan": np.array(["free", "gold", "team"])[RANDOM.integers(0, 3, 40)],
        "age": RANDOM.integers(18, 80, 40),
        "income": RANDOM.normal(40, 9, 40).round(2),
    }
)
TARGET = (TABLE["code"] % 2 == 0) ^ (TABLE["plan"] == "gold")


def write_code_as_text(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.astype({"code": str})


def number_texts(frame: pd.DataFrame) -> pd.DataFrame:
    numbers = {name: frame[name].map({"free": 0, "gold": 1, "team": 2}) for name in frame.select_dtypes("str")}
    return frame.assign(**numbers).select_dtypes("number").reindex(columns=TABLE.columns, fill_value=0)


def _encoded(step: Any) -> Any:
    encoder = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["code", "plan"]), (StandardScaler(), ["age", "income"])
    )
    return make_pipeline(FunctionTransformer(step), encoder, LogisticRegression()).fit(TABLE, TARGET)


def _add(
    folder: Path, estimator: Any, example: Path | pd.DataFrame, **options: Any
) -> tuple[Manifest, LoadedModel]:
    file = folder / "model.joblib"
    joblib.dump(estimator, file)
    store = Store(folder / "store")
    table = read_table(example) if isinstance(example, pd.DataFrame) else example
    manifest = package(store, file, name="model", example=table, trust_pickle=True, **options)
    return manifest, load(store, "model", manifest.version, trust_pickle=True)


def _write_json(folder: Path, table: pd.DataFrame) -> Path:
    file = folder / "rows.json"
    file.write_text(json.dumps(table.to_dict("records")))
    return file


@pytest.mark.parametrize("form", ["frame", "json", "csv", "parquet"])
@pytest.mark.parametrize("step", [write_code_as_text, number_texts])
def test_whole_numbers_and_texts_reach_the_model_with_the_types_it_was_fitted_on(
    form: str, step: Any, tmp_path: Path
) -> None:
    estimator = (
        _encoded(step)
        if step is write_code_as_text
        else make_pipeline(FunctionTransformer(step), LogisticRegression(max_iter=10_000)).fit(TABLE, TARGET)
    )
    example: Any = TABLE
    if form == "json":
        example = _write_json(tmp_path, TABLE)
    elif form == "csv":
        example = tmp_path / "rows.csv"
        TABLE.to_csv(example, index=False)
    elif form == "parquet":
        example = tmp_path / "rows.parquet"
        TABLE.to_parquet(example)
    _, loaded = _add(tmp_path, estimator, example)
    probabilities = loaded.predict("predict_proba", TABLE.to_dict("records"))
    np.testing.assert_allclose(probabilities, estimator.predict_proba(TABLE), rtol=1e-12)


def test_a_type_that_changes_no_prediction_is_not_required_of_an_untyped_example(tmp_path: Path) -> None:
    estimator = make_pipeline(
        make_column_transformer((OneHotEncoder(), ["plan"]), remainder="passthrough"),
        LogisticRegression(max_iter=10_000),
    ).fit(TABLE, TARGET)
    manifest, loaded = _add(tmp_path, estimator, _write_json(tmp_path, TABLE))
    assert isinstance(manifest.contract.input, Named)
    assert {feature.dtype for feature in manifest.contract.input.features} == {None}
    loaded.predict("predict", [TABLE.iloc[0].to_dict() | {"age": 41.5}])


def test_a_typed_table_records_the_type_of_each_column(tmp_path: Path) -> None:
    table = TABLE.astype({"income": "float32", "age": "Int64"}).assign(
        plan=pd.Categorical(TABLE["plan"], ["team", "gold", "free"], ordered=True), member=TABLE["age"] > 40
    )
    estimator = HistGradientBoostingClassifier(max_iter=5, categorical_features="from_dtype").fit(table, TARGET)
    manifest, _ = _add(tmp_path, estimator, table)
    assert isinstance(manifest.contract.input, Named)
    described = {feature.name: (feature.kind, feature.dtype) for feature in manifest.contract.input.features}
    assert described == {
        "code": ("integer", "int64"),
        "plan": ("category", "ordered category"),
        "age": ("integer", "Int64"),
        "income": ("number", "float32"),
        "member": ("boolean", "bool"),
    }
    plan = manifest.contract.input.features[1]
    assert plan.categories == ("team", "gold", "free")
    assert manifest.proof is not None
    assert manifest.proof.compared == len(table)


def test_an_array_keeps_its_type(tmp_path: Path) -> None:
    data = RANDOM.integers(0, 9, (30, 3)).astype(np.int32)
    estimator = LogisticRegression().fit(data, data[:, 0] > 4)
    manifest = package(Store(tmp_path), estimator, name="model", example=read_table(data))
    assert manifest.contract.input == Array(shape=(3,), kind="integer", dtype="int32")


@pytest.mark.parametrize(
    ("dtype", "values", "kind"),
    [
        ("int16", [1, 2], "integer"),
        ("uint8", [0, 255], "integer"),
        ("float32", [1.5, None], "number"),
        ("bool", [True, False], "boolean"),
        ("boolean", [True, None], "boolean"),
        ("Int64", [1, None], "integer"),
        ("Float64", [1.5, None], "number"),
        ("str", ["a", None], "string"),
        ("string", ["a", None], "string"),
    ],
)
def test_a_column_is_built_as_pandas_builds_it(dtype: str, values: list[Any], kind: Any) -> None:
    feature = Feature(name="x", kind=kind, dtype=dtype, nullable=None in values)
    built = pd.Series(make_column_builder(feature, np.nan)(values))
    pd.testing.assert_series_equal(built, pd.Series(values, dtype=dtype), check_names=False)


def test_the_type_of_a_column_does_not_depend_on_the_values_of_a_batch() -> None:
    build = make_column_builder(Feature(name="x", kind="integer", dtype="int64", nullable=True), None)
    assert build([1, 2]).dtype == build([1, None]).dtype == np.float64


def test_a_number_that_the_type_cannot_hold_is_invalid_input() -> None:
    with pytest.raises(InvalidInput, match="does not fit in the model's type int8"):
        make_column_builder(Feature(name="x", kind="integer", dtype="int8"), None)([1000])


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pd.Series([1j, 2j]), "the column 'x' has the type complex128"),
        (pd.Series([{1}, {2}]), "the column 'x' has the type object"),
        (pd.Series(pd.Categorical([pd.Timestamp("2026-01-01")])), "neither texts nor numbers"),
    ],
)
def test_a_column_of_another_type_is_refused_by_name(column: pd.Series[Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read_table(pd.DataFrame({"x": column}))


def test_two_columns_of_one_name_are_refused() -> None:
    with pytest.raises(ModelError, match="two columns 'x'"):
        read_table(pd.DataFrame([[1, 2]], columns=["x", "x"]))
