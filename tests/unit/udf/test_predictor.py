"""The callable: frames of each library in, the same kind out, with the predictions of the path of rows."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression

from headrace.errors import InvalidInput, UnknownModel
from headrace_worker.packaging.package import package
from headrace_worker.packaging.table import read_table
from headrace_worker.store.store import Store
from headrace_worker.udf import Predictor
from tests.support.customers import FEATURES, customers, predict_rows

ROWS = 400
TABLE = customers(ROWS, seed=9)


def _to_record_batch(table: pd.DataFrame) -> pa.RecordBatch:
    return pa.RecordBatch.from_pandas(table, preserve_index=False)


#: By name, a function that makes a frame of a library out of one of pandas.
LIBRARIES: dict[str, Callable[[pd.DataFrame], Any]] = {
    "pandas": lambda table: table,
    "pandas objects": lambda table: table.astype(object).where(table.notna(), None),
    "pandas of Arrow": lambda table: pa.Table.from_pandas(table, preserve_index=False).to_pandas(
        types_mapper=pd.ArrowDtype
    ),
    "pyarrow Table": lambda table: pa.Table.from_pandas(table, preserve_index=False),
    "pyarrow RecordBatch": _to_record_batch,
    "polars": pl.from_pandas,
}


def _values(frame: Any, name: str) -> list[Any]:
    """Return a column as Python has it, None for a missing value."""
    if isinstance(frame, pd.DataFrame):
        return [None if pd.isna(value) else value for value in frame[name].astype(object)]
    column = frame[name] if isinstance(frame, pl.DataFrame) else frame.column(name)
    return list(column.to_list() if isinstance(frame, pl.DataFrame) else column.to_pylist())


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_frame_comes_back_as_the_same_kind_with_the_predictions_of_its_rows(library: str, store: Path) -> None:
    frame = LIBRARIES[library](TABLE)
    scored = Predictor("churn@1", key="customer", keep=["plan"])(frame)
    assert type(scored) is type(frame)
    names = list(scored.schema.names if isinstance(scored, pa.Table | pa.RecordBatch) else scored.columns)
    assert names == ["customer", "plan", "prediction", "error"]
    assert _values(scored, "error") == [None] * ROWS
    assert _values(scored, "prediction") == predict_rows(store, "churn", TABLE)
    assert _values(scored, "customer") == TABLE["customer"].tolist()
    assert _values(scored, "plan") == _values(TABLE, "plan")


def test_the_index_of_pandas_stays(store: Path) -> None:
    frame = TABLE.set_index(np.arange(ROWS) * 3 + 5)
    assert Predictor("churn@1")(frame).index.equals(frame.index)


def test_without_keep_all_columns_stay_and_with_none_only_the_results(store: Path) -> None:
    assert list(Predictor("churn@1")(TABLE).columns) == [*TABLE.columns, "prediction", "error"]
    assert list(Predictor("churn@1", keep=[])(TABLE).columns) == ["prediction", "error"]


@pytest.mark.parametrize("library", LIBRARIES)
def test_types_are_the_same_whether_rows_fail_and_whether_there_are_any(library: str, store: Path) -> None:
    score, convert = Predictor("churn@1", key="customer", keep=["plan"]), LIBRARIES[library]
    frames = [
        convert(TABLE),
        convert(TABLE.assign(age=-0.5 + TABLE["age"])),
        convert(TABLE.assign(plan=None, visits=1.5)),
        convert(TABLE).iloc[:0] if isinstance(convert(TABLE), pd.DataFrame) else convert(TABLE)[:0],
    ]
    types = [
        dict(zip(("customer", "plan", "prediction", "error"), _types(score(frame)), strict=True))
        for frame in frames
    ]
    for others in types[1:]:
        assert {name: others[name] for name in ("prediction", "error")} == {
            name: types[0][name] for name in ("prediction", "error")
        }


def _types(frame: Any) -> list[Any]:
    if isinstance(frame, pa.Table | pa.RecordBatch):
        return list(frame.schema.types)
    return list(frame.dtypes)


@pytest.mark.parametrize("library", ["pandas", "pyarrow Table", "polars"])
def test_a_bad_row_has_the_error_and_the_others_have_predictions(library: str, store: Path) -> None:
    table = TABLE.assign(city=TABLE["city"].fillna("Ulm"), visits=TABLE["visits"].astype(float))
    table.loc[[3, 17], "visits"] = 2.5
    scored = Predictor("churn@1")(LIBRARIES[library](table))
    errors = _values(scored, "error")
    assert [row for row, error in enumerate(errors) if error] == [3, 17]
    assert errors[3].startswith("bad input: ")
    assert "'visits' must be an integer" in errors[3]
    good = table.drop(index=[3, 17])
    predictions = _values(scored, "prediction")
    assert predictions[3] is None
    assert predictions[17] is None
    assert [value for row, value in enumerate(predictions) if row not in {3, 17}] == predict_rows(
        store, "churn", good
    )


def test_a_column_of_objects_of_several_types_fails_in_its_bad_rows_only(store: Path) -> None:
    table = TABLE.astype({"age": object, "visits": object})
    table.loc[2, "age"] = "forty"
    table.loc[5, "visits"] = 2**80
    table.loc[6, "visits"] = object()
    table.loc[7, "age"] = np.int32(33)
    scored = Predictor("churn@1")(table)
    errors = _values(scored, "error")
    assert [row for row, error in enumerate(errors) if error] == [2, 5, 6]
    assert "'age' must be" in errors[2]
    assert "got a string" in errors[2]
    good = table.drop(index=[2, 5, 6])
    predictions = [value for row, value in enumerate(_values(scored, "prediction")) if row not in {2, 5, 6}]
    assert predictions == predict_rows(store, "churn", good)


def test_on_error_raise_names_the_row_and_its_error(store: Path) -> None:
    table = TABLE.assign(visits=TABLE["visits"].astype(float))
    table.loc[17, "visits"] = 2.5
    score = Predictor("churn@1", on_error="raise")
    with pytest.raises(InvalidInput, match=r"churn@1: row 17 of 400 rows failed: bad input: .*'visits'"):
        score(table)
    assert len(score(table.drop(index=17))) == ROWS - 1


def test_a_frame_that_lacks_a_column_raises_and_names_it(store: Path) -> None:
    with pytest.raises(InvalidInput, match=r"lacks a column .*'visits' \(did you mean 'Visits'\?\)"):
        Predictor("churn@1")(TABLE.rename(columns={"visits": "Visits"}))
    with pytest.raises(InvalidInput, match=r"lacks a column .*'visits'"):
        Predictor("churn@1").schema_for(pa.schema([(name, pa.int64()) for name in FEATURES if name != "visits"]))


@pytest.mark.parametrize(
    ("frame", "advice"),
    [
        ({"age": np.arange(3)}, 'batch_format="pyarrow"'),
        (pl.LazyFrame({"age": [1]}), "collect it"),
        (iter([TABLE]), "`frames`"),
        (np.zeros((2, 2)), "got a ndarray"),
    ],
)
def test_what_is_no_frame_is_refused_with_advice(frame: Any, advice: str, store: Path) -> None:
    with pytest.raises(InvalidInput, match=advice):
        Predictor("churn@1")(frame)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": "chrun"}, UnknownModel, "did you mean 'churn'"),
        ({"model": "churn@9"}, UnknownModel, "no version '9'; it has 1"),
        ({"model": "churn@"}, InvalidInput, "no version behind the '@'"),
        ({"model": "churn@1", "method": "predict_prob"}, InvalidInput, "no method 'predict_prob'; it has predict"),
        ({"model": "churn@1", "on_error": "ignore"}, InvalidInput, '"column" or "raise"'),
        ({"model": "churn@1", "keep": "plan"}, InvalidInput, r"keep=\['plan'\]"),
        ({"model": "churn@1", "store": "s3://user:secret@bucket"}, InvalidInput, "holds a password"),
    ],
)
def test_what_does_not_exist_is_refused_when_the_predictor_is_made(
    options: dict[str, Any], error: type[Exception], message: str, store: Path
) -> None:
    with pytest.raises(error, match=message) as raised:
        Predictor(**options)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "table", "message"),
    [
        ({"keep": ["plans"]}, TABLE, "no column 'plans' to keep; did you mean 'plan'"),
        ({"key": "client"}, TABLE, "no column 'client' to keep"),
        ({}, TABLE.assign(prediction=1), "has a column 'prediction'"),
        ({}, pd.concat([TABLE, TABLE[["age"]]], axis=1), "two columns 'age'"),
    ],
)
def test_columns_that_cannot_be_kept_are_refused(
    options: dict[str, Any], table: pd.DataFrame, message: str, store: Path
) -> None:
    with pytest.raises(InvalidInput, match=message):
        Predictor("churn@1", **options)(table)


def test_a_column_named_prediction_does_not_disturb_where_it_is_not_kept(store: Path) -> None:
    scored = Predictor("churn@1", keep=["plan"])(TABLE.assign(prediction="old"))
    assert scored["prediction"].tolist() == predict_rows(store, "churn", TABLE)


def test_the_pickle_holds_the_reference_only_and_predicts_the_same(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("HEADRACE_REDIS_URL_FILE", "")
    score = Predictor("churn", key="customer", keep=[])
    before = pickle.dumps(score)
    expected = score(TABLE)
    assert pickle.dumps(score) == before
    assert len(before) < 500
    assert b"hunter2" not in before
    monkeypatch.delenv("HEADRACE_MODELS")
    pd.testing.assert_frame_equal(pickle.loads(before)(TABLE), expected)


def test_the_schema_and_the_meta_are_those_of_the_results(store: Path) -> None:
    score, table = Predictor("churn@1", key="customer", keep=["plan", "joined"]), LIBRARIES["pyarrow Table"](TABLE)
    assert score.schema_for(table.schema).equals(score(table).schema)
    own = Predictor("churn@1", keep=["plan", "visits"])
    assert own.schema.names == ["plan", "visits", "prediction", "error"]
    assert own.schema.field("prediction").type == pa.float64()
    assert own.meta.dtypes["prediction"] == np.float64
    assert own.meta.dtypes["error"] == own(TABLE).dtypes["error"]
    with pytest.raises(InvalidInput, match="no column 'customer' to keep"):
        _ = score.schema
    with pytest.raises(InvalidInput, match="a StructType of Spark"):
        score.schema_for(["customer"])


def test_the_types_of_predictions_follow_the_method(tmp_path: Path) -> None:
    store, generator = Store(tmp_path / "store"), np.random.default_rng(4)
    table = pd.DataFrame(generator.normal(size=(80, 2)), columns=["a", "b"])
    labels = np.where(table["a"] > 0, "yes", "no")
    package(store, LogisticRegression().fit(table, labels), name="answer", example=read_table(table))
    package(store, LogisticRegression().fit(table, labels == "yes"), name="truth", example=read_table(table))
    package(store, KMeans(3, n_init=1).fit(table), name="group", example=read_table(table))
    expected = {
        ("answer", "predict"): pa.string(),
        ("answer", "predict_proba"): pa.list_(pa.float64()),
        ("answer", "decision_function"): pa.float64(),
        ("truth", "predict"): pa.bool_(),
        ("group", "predict"): pa.int64(),
        ("group", "transform"): pa.list_(pa.float64()),
    }
    for (name, method), kind in expected.items():
        score = Predictor(name, method=method, keep=[], store=tmp_path / "store")
        arrow = score(pa.Table.from_pandas(table))
        assert score.schema.field("prediction").type == kind, (name, method)
        assert arrow.schema.equals(score.schema)
        bad = table.assign(a=table["a"].mask(table.index == 1))
        frame = score(bad)
        assert frame["prediction"].isna().tolist() == [row == 1 for row in range(80)], (name, method)
        assert frame.dtypes["prediction"] == score.meta.dtypes["prediction"] == score(table).dtypes["prediction"]


def test_a_model_of_lists_takes_a_column_of_each_value_beside_the_key(tmp_path: Path) -> None:
    array = np.random.default_rng(4).normal(size=(50, 3))
    model = LogisticRegression().fit(array, array[:, 0] > 0)
    package(Store(tmp_path), model, name="lists", example=read_table(array))
    frame = pd.DataFrame(array, columns=["x", "y", "z"]).assign(id=np.arange(50))
    scored = Predictor("lists", key="id", keep=[], store=tmp_path)(frame)
    assert scored["prediction"].tolist() == model.predict(array).tolist()
    assert scored["id"].tolist() == list(range(50))


def test_a_large_frame_keeps_the_order_of_its_rows(store: Path) -> None:
    table = pd.concat([TABLE] * 170, ignore_index=True)
    table["visits"] = table["visits"].astype(float)
    table.loc[[9_999, 65_536, 67_999], "visits"] = 0.5
    scored = Predictor("churn@1", keep=[])(table)
    assert np.flatnonzero(scored["error"].notna()).tolist() == [9_999, 65_536, 67_999]
    expected = np.tile(predict_rows(store, "churn", TABLE), 170)
    good = scored["error"].isna().to_numpy()
    assert (scored["prediction"].to_numpy()[good] == expected[good]).all()
