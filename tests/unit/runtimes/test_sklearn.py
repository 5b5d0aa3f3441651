"""The scikit-learn runtime: the input that estimators get for a batch, and the predictions of their output."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from headrace.catalog.contract import Array, Contract, Feature, Named, Output, Text
from headrace.catalog.validation import check_instances
from headrace.errors import InvalidInput, ModelError
from headrace_worker.packaging.infer import infer
from headrace_worker.packaging.infer_methods import run_methods
from headrace_worker.runtimes.estimator_tree import describe, find_categories, iter_estimators
from headrace_worker.runtimes.predictions import to_predictions
from headrace_worker.runtimes.sklearn import SklearnRuntime

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(40, 3))
Y = (X[:, 0] > 0).astype(int)
NAMES = ["a", "b", "c"]
FRAME = pd.DataFrame(X, columns=NAMES)


class _Spy(BaseEstimator):
    """An estimator that remembers its input."""

    def predict(self, data: Any) -> Any:
        self.data = data
        return np.zeros(len(data))


def _input_for(input_schema: Named | Array | Text, instances: list[Any], **attributes: Any) -> Any:
    """Return the input that an estimator with these fitted attributes gets for instances."""
    spy = _Spy()
    vars(spy).update(attributes)
    SklearnRuntime(spy, input_schema).predict("predict", instances)
    return spy.data


def _features(**kinds: Any) -> Named:
    return Named(
        features=tuple(
            Feature(name=name, kind=kind.rstrip("?"), nullable=kind.endswith("?")) for name, kind in kinds.items()
        )
    )


def test_a_frame_has_the_columns_of_the_contract_and_the_types_of_pandas() -> None:
    frame = _input_for(
        _features(n="number?", i="integer", j="integer?", b="boolean", s="string?", c="category"),
        [
            {"s": None, "c": 1, "b": True, "i": 1, "j": None, "n": 1},
            {"n": None, "i": 2, "j": 2, "b": False, "s": "x", "c": "y"},
        ],
    )
    assert list(frame.columns) == ["n", "i", "j", "b", "s", "c"]
    assert [str(dtype) for dtype in frame.dtypes] == ["float64", "int64", "float64", "bool", "object", "object"]
    assert math.isnan(frame["n"][1])
    assert math.isnan(frame["s"][0])
    assert frame["c"].tolist() == [1, "y"]


def test_a_frame_of_one_text_column_holds_texts() -> None:
    assert _input_for(_features(text="string"), [{"text": "a b"}]).iloc[0, 0] == "a b"


def test_categories_that_are_numbers_make_a_column_of_numbers() -> None:
    whole = Feature(name="w", kind="category", categories=(1, 2))
    nullable = Feature(name="h", kind="category", categories=(1, 2), nullable=True)
    boolean = Feature(name="t", kind="category", categories=(True, False))
    frame = _input_for(Named(features=(whole, nullable, boolean)), [{"w": 1, "h": None, "t": True}])
    assert [str(dtype) for dtype in frame.dtypes] == ["int64", "float64", "bool"]


def test_an_estimator_fitted_on_arrays_gets_an_array_in_the_order_of_the_contract() -> None:
    data = _input_for(_features(b="number", a="number?"), [{"a": None, "b": 2}], n_features_in_=2)
    assert isinstance(data, np.ndarray)
    assert data[0, 0] == 2.0
    assert math.isnan(data[0, 1])
    mixed = _input_for(_features(a="number", b="string"), [{"a": 1.5, "b": "x"}], n_features_in_=2)
    assert mixed.tolist() == [[1.5, "x"]]


def test_arrays_keep_their_shape_and_kind() -> None:
    data = _input_for(Array(shape=(2, 2), nullable=True), [[[1, 2], [3, None]]])
    assert data.shape == (1, 2, 2)
    assert math.isnan(data[0, 1, 1])
    assert _input_for(Array(shape=(1,), kind="integer"), [[1]]).dtype == np.int64
    assert _input_for(Array(shape=(1,), kind="string"), [["a"]]).tolist() == [["a"]]
    assert _input_for(Array(shape=()), [1.5, 2]).tolist() == [1.5, 2.0]


def test_integers_beyond_64_bits_become_floats_or_are_refused() -> None:
    assert _input_for(Array(shape=(1,), kind="integer"), [[2**80]]).tolist() == [[float(2**80)]]
    with pytest.raises(InvalidInput, match="too large for a 64-bit float"):
        _input_for(Array(shape=(1,), kind="integer"), [[10**400]])


def test_missing_values_have_the_form_the_estimator_was_fitted_with() -> None:
    for missing in (None, np.nan):
        table = pd.DataFrame({"s": pd.Series(["a", missing, "b"] * 5, dtype=object)})
        estimator = make_pipeline(
            SimpleImputer(missing_values=missing, strategy="constant", fill_value="none"),
            OneHotEncoder(sparse_output=False),
        ).fit(table)
        runtime = SklearnRuntime(estimator, _features(s="string?"))
        assert runtime.predict("transform", [{"s": None}]) == [[0.0, 0.0, 1.0]], missing


def test_a_vectorizer_gets_dictionaries_without_missing_values() -> None:
    estimator = make_pipeline(DictVectorizer(), LogisticRegression()).fit([{"a": 1.0}, {"b": "x"}] * 5, [0, 1] * 5)
    runtime = SklearnRuntime(estimator, _features(a="number?", b="string?"))
    assert runtime.predict("predict", [{"a": 1.0, "b": None}, {"a": None, "b": "x"}]) == [0, 1]


def test_feature_names_are_removed_from_an_own_estimator_of_numbers() -> None:
    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(FRAME, Y)
    expected = fitted.predict_proba(FRAME)
    runtime = SklearnRuntime(fitted, _features(a="number", b="number", c="number"), own=True)
    assert not any("feature_names_in_" in vars(inner) for inner in iter_estimators(fitted))
    # The array has another order in memory, which may change the last digit of a sum.
    np.testing.assert_allclose(runtime.predict("predict_proba", FRAME.to_dict("records")), expected, rtol=1e-13)


@pytest.mark.parametrize(
    "estimator",
    [
        make_pipeline(make_column_transformer((StandardScaler(), ["c", "a"])), LogisticRegression()),
        make_pipeline(FunctionTransformer(lambda table: table[["c", "a"]]), LogisticRegression()),
        make_pipeline(StandardScaler().set_output(transform="pandas"), LogisticRegression()),
    ],
    ids=["columns by name", "function", "frames between steps"],
)
def test_feature_names_stay_if_an_inner_estimator_may_use_them(estimator: Any) -> None:
    estimator.fit(FRAME, Y)
    expected = estimator.predict_proba(FRAME).tolist()
    runtime = SklearnRuntime(estimator, _features(a="number", b="number", c="number"), own=True)
    assert runtime.predict("predict_proba", FRAME.to_dict("records")) == expected
    assert hasattr(estimator, "feature_names_in_")


def test_an_estimator_that_the_runtime_does_not_own_is_not_changed() -> None:
    estimator = LogisticRegression().fit(FRAME, Y)
    SklearnRuntime(estimator, _features(a="number", b="number", c="number")).predict(
        "predict", FRAME.to_dict("records")
    )
    assert estimator.feature_names_in_.tolist() == NAMES


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (np.array([1, 2]), [1, 2]),
        (np.array([0.5, np.nan]), [0.5, None]),
        (np.array([[np.inf, 1], [2, -np.inf]], dtype=np.float32), [[None, 1.0], [2.0, None]]),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array(["a", np.nan], dtype=object), ["a", None]),
        (np.array([np.int64(1), None], dtype=object), [1, None]),
        (np.array([True, False]), [True, False]),
        (np.array(["2026-01-01", "2026-01-02"], dtype="M8[D]"), ["2026-01-01", "2026-01-02"]),
        (
            sparse.csc_matrix([[0, 1.5], [0, 0]]),
            [{"indices": [1], "values": [1.5]}, {"indices": [], "values": []}],
        ),
        (
            sparse.coo_array(([1, 1, np.inf, 0.0], ([0, 0, 1, 1], [1, 1, 0, 1])), shape=(2, 2)),
            [{"indices": [1], "values": [2.0]}, {"indices": [0], "values": [None]}],
        ),
        ([("a", 1), ("b", "c", 2)], [["a", 1], ["b", "c", 2]]),
        ((b"gold", ("a", b"b")), ["gold", ["a", "b"]]),
        ((np.array([1.5, 2.5]), pd.Series(["a", "b"])), [[1.5, "a"], [2.5, "b"]]),
        (pd.DataFrame({"a": [1, 2], "b": ["x", None]}), [[1, "x"], [2, None]]),
        (pd.Series([1.5, None]), [1.5, None]),
        ([1, 2], [1, 2]),
        (
            [np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([[1.0], [2.0]])],
            [[[1.0, 0.0], [1.0]], [[0.5, 0.5], [2.0]]],
        ),
        ([np.array([1, 2]), np.array([3, 4])], [[1, 2], [3, 4]]),
    ],
)
def test_every_kind_of_output_becomes_lists(output: Any, expected: Any) -> None:
    predictions = to_predictions(output, 2)
    assert predictions == expected
    assert json.loads(json.dumps(predictions, allow_nan=False)) == expected


@pytest.mark.parametrize("output", [np.zeros(3), np.float64(1), 1, None, [], "ab"])
def test_output_must_hold_one_prediction_for_each_instance(output: Any) -> None:
    with pytest.raises(ModelError, match="it must return one"):
        to_predictions(output, 2)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (np.array(["2026-01-02T03:04:05", "NaT"], "datetime64[ns]"), ["2026-01-02T03:04:05.000000000", None]),
        (pd.Series(pd.to_datetime(["2026-01-02T03:04:05+01:00", None])), ["2026-01-02T02:04:05+00:00", None]),
        (np.array([1_500_000_000, "NaT"], "timedelta64[ns]"), [1.5, None]),
        (np.array([b"gold", b"\xff"]), ["gold", "\\xff"]),
        (np.array([b"gold", b"free"], dtype=object), ["gold", "free"]),
        ((np.array([1.0, 2.0]), np.array([0.1, 0.2])), [[1.0, 0.1], [2.0, 0.2]]),
        ((np.array([[1.0], [2.0]]), np.array([[3], [4]])), [[[1.0], [3]], [[2.0], [4]]]),
    ],
)
def test_datetimes_bytes_and_tuples_become_json(output: Any, expected: Any) -> None:
    assert to_predictions(output, 2) == expected


def test_a_transformer_transforms_by_default() -> None:
    rows = [[0.0, 1.0], [2.0, 1.0], [5.0, 4.0]]
    assert infer(PCA(1).fit(rows), rows, model="m").method == "transform"


def test_classes_of_bytes_are_texts() -> None:
    classes = np.array([b"free", b"gold"])
    outputs, _ = run_methods(lambda _method, rows: ["gold"] * len(rows), ["predict"], [[1.0]], classes)
    assert outputs["predict"].classes == ("free", "gold")


def test_inner_estimators_are_found_at_any_depth() -> None:
    forest = RandomForestClassifier(3, random_state=0).fit(X, Y)
    names = [type(inner).__name__ for inner in iter_estimators(make_pipeline(StandardScaler(), forest))]
    assert sorted(set(names)) == ["DecisionTreeClassifier", "Pipeline", "RandomForestClassifier", "StandardScaler"]
    assert describe(make_pipeline(StandardScaler(), forest)) == "Pipeline(StandardScaler, RandomForestClassifier)"


def test_categories_are_found_by_their_input_column() -> None:
    table = pd.DataFrame({"x": [1.0, 2.0, 3.0], "s": ["a", "b", "a"], "t": ["c", "c", "d"]})
    inner = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder())
    estimator = make_pipeline(make_column_transformer((inner, ["t", "s"]), remainder="drop")).fit(table)
    assert find_categories(estimator, list(table)) == {"t": ["c", "d"], "s": ["a", "b"]}


# Property test: the runtime accepts all instances that pass the check of a contract.

_MIXED = pd.DataFrame(
    {
        "number": X[:, 0],
        "with_gaps": np.where(X[:, 1] > 1, np.nan, X[:, 1]),
        "code": RANDOM.integers(0, 3, 40),
        "text": np.array(["red", "green", None], dtype=object)[RANDOM.integers(0, 3, 40)],
        "words": np.array(["some words", "other words"])[RANDOM.integers(0, 2, 40)],
        "flag": X[:, 2] > 0,
    }
)


def _fit_mixed(unknown: str) -> Any:
    return make_pipeline(
        make_column_transformer(
            (make_pipeline(SimpleImputer(), StandardScaler()), ["number", "with_gaps"]),
            (
                make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown=unknown)),
                ["text"],
            ),
            (OneHotEncoder(handle_unknown=unknown), ["code"]),
            (TfidfVectorizer(), "words"),
            remainder="passthrough",
        ),
        LogisticRegression(),
    ).fit(_MIXED, Y)


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {name: None if pd.isna(value) else value for name, value in row.items()}
        for row in table.astype(object).to_dict("records")
    ]


FUZZED: dict[str, tuple[Any, list[Any]]] = {
    "open categories": (_fit_mixed("ignore"), _rows(_MIXED)),
    "closed categories": (_fit_mixed("error"), _rows(_MIXED)),
    "numbers of a frame": (LogisticRegression().fit(FRAME, Y), _rows(FRAME)),
    "numbers of an array": (make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y), X.tolist()),
    "boosting": (HistGradientBoostingClassifier(max_iter=2).fit(X, Y), X.tolist()),
    "texts": (TfidfVectorizer().fit(["some words", "other words"]), ["some words"]),
}


def _strategy(feature: Feature) -> st.SearchStrategy[Any]:
    kinds: dict[str, st.SearchStrategy[Any]] = {
        "number": st.floats(-1e100, 1e100) | st.integers(-(2**70), 2**70),
        "integer": st.integers(-(2**70), 2**70),
        "boolean": st.booleans(),
        "string": st.text(),
        "category": st.sampled_from(feature.categories or ("a", 1)),
    }
    return kinds[feature.kind] | st.none() if feature.nullable else kinds[feature.kind]


def _instances(input_schema: Named | Array | Text) -> st.SearchStrategy[Any]:
    match input_schema:
        case Named():
            return st.fixed_dictionaries({feature.name: _strategy(feature) for feature in input_schema.features})
        case Array():
            value = _strategy(Feature(name="", kind=input_schema.kind, nullable=input_schema.nullable))
            return st.lists(value, min_size=input_schema.shape[0], max_size=input_schema.shape[0])
        case Text():
            return st.text()


@pytest.mark.parametrize("kind", FUZZED)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_instances_that_pass_the_check_never_crash_the_runtime(kind: str, data: st.DataObject) -> None:
    estimator, _ = FUZZED[kind]
    contract = CONTRACTS[kind]
    instances = data.draw(st.lists(_instances(contract.input), min_size=1, max_size=4))
    checked = check_instances(contract, instances)
    runtime = SklearnRuntime(estimator, contract.input)
    for method in contract.methods:
        predictions = runtime.predict(method, checked)
        assert len(predictions) == len(instances)
        json.dumps(predictions, allow_nan=False)


def _infer(kind: str) -> Contract:
    estimator, example = FUZZED[kind]
    return infer(estimator, example, model=kind.replace(" ", "-"))


CONTRACTS = {kind: _infer(kind) for kind in FUZZED}


def test_the_contracts_of_the_property_test_are_as_intended() -> None:
    closed, open_ = CONTRACTS["closed categories"].input, CONTRACTS["open categories"].input
    assert isinstance(closed, Named)
    assert isinstance(open_, Named)
    assert [feature.kind for feature in closed.features] == [
        "number", "number", "category", "category", "string", "boolean",
    ]  # fmt: skip
    assert [feature.kind for feature in open_.features] == [
        "number", "number", "integer", "string", "string", "boolean",
    ]  # fmt: skip
    assert CONTRACTS["texts"].methods == {"transform": Output(shape=())}
