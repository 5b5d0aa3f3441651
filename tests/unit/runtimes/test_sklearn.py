"""The scikit-learn runtime: what estimators get for a batch of instances, and what their output becomes."""

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
from headrace_worker.runtimes.estimator_tree import describe, find_categories, iter_estimators
from headrace_worker.runtimes.predictions import to_predictions
from headrace_worker.runtimes.sklearn import SklearnRuntime

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(40, 3))
Y = (X[:, 0] > 0).astype(int)
NAMES = ["a", "b", "c"]
FRAME = pd.DataFrame(X, columns=NAMES)


class _Spy(BaseEstimator):
    """Keeps what it is given."""

    def predict(self, taken: Any) -> Any:
        self.taken = taken
        return np.zeros(len(taken))


def _given_to(given: Named | Array | Text, instances: list[Any], **fitted: Any) -> Any:
    spy = _Spy()
    vars(spy).update(fitted)
    SklearnRuntime(spy, given).predict("predict", instances)
    return spy.taken


def _features(**kinds: Any) -> Named:
    return Named(
        features=tuple(
            Feature(name=name, kind=kind.rstrip("?"), nullable=kind.endswith("?")) for name, kind in kinds.items()
        )
    )


def test_a_frame_has_the_columns_of_the_contract_and_the_types_of_pandas() -> None:
    frame = _given_to(
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
    assert _given_to(_features(text="string"), [{"text": "a b"}]).iloc[0, 0] == "a b"


def test_categories_that_are_numbers_make_a_column_of_numbers() -> None:
    whole = Feature(name="w", kind="category", categories=(1, 2))
    holed = Feature(name="h", kind="category", categories=(1, 2), nullable=True)
    truth = Feature(name="t", kind="category", categories=(True, False))
    frame = _given_to(Named(features=(whole, holed, truth)), [{"w": 1, "h": None, "t": True}])
    assert [str(dtype) for dtype in frame.dtypes] == ["int64", "float64", "bool"]


def test_an_estimator_fitted_on_arrays_gets_an_array_in_the_order_of_the_contract() -> None:
    taken = _given_to(_features(b="number", a="number?"), [{"a": None, "b": 2}], n_features_in_=2)
    assert isinstance(taken, np.ndarray)
    assert taken[0, 0] == 2.0
    assert math.isnan(taken[0, 1])
    mixed = _given_to(_features(a="number", b="string"), [{"a": 1.5, "b": "x"}], n_features_in_=2)
    assert mixed.tolist() == [[1.5, "x"]]


def test_arrays_keep_their_shape_and_kind() -> None:
    taken = _given_to(Array(shape=(2, 2), nullable=True), [[[1, 2], [3, None]]])
    assert taken.shape == (1, 2, 2)
    assert math.isnan(taken[0, 1, 1])
    assert _given_to(Array(shape=(1,), kind="integer"), [[1]]).dtype == np.int64
    assert _given_to(Array(shape=(1,), kind="string"), [["a"]]).tolist() == [["a"]]
    assert _given_to(Array(shape=()), [1.5, 2]).tolist() == [1.5, 2.0]


def test_integers_beyond_64_bits_become_floats_or_bad_input() -> None:
    assert _given_to(Array(shape=(1,), kind="integer"), [[2**80]]).tolist() == [[float(2**80)]]
    with pytest.raises(InvalidInput, match="too large for a 64-bit float"):
        _given_to(Array(shape=(1,), kind="integer"), [[10**400]])


def test_missing_values_are_written_as_the_estimator_was_fitted() -> None:
    for fitted, written in ((None, None), (np.nan, "nan")):
        table = pd.DataFrame({"s": pd.Series(["a", fitted, "b"] * 5, dtype=object)})
        estimator = make_pipeline(
            SimpleImputer(missing_values=fitted, strategy="constant", fill_value="none"), OneHotEncoder()
        ).fit(table)
        runtime = SklearnRuntime(estimator, _features(s="string?"))
        assert runtime.predict("transform", [{"s": None}]) == [[0.0, 0.0, 1.0]], written


def test_dictionaries_reach_a_vectorizer_as_they_are() -> None:
    estimator = make_pipeline(DictVectorizer(), LogisticRegression()).fit([{"a": 1.0}, {"b": "x"}] * 5, [0, 1] * 5)
    runtime = SklearnRuntime(estimator, _features(a="number?", b="string?"))
    assert runtime.predict("predict", [{"a": 1.0, "b": None}, {"a": None, "b": "x"}]) == [0, 1]


def test_own_estimators_of_numbers_are_spared_the_names() -> None:
    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(FRAME, Y)
    expected = fitted.predict_proba(FRAME)
    runtime = SklearnRuntime(fitted, _features(a="number", b="number", c="number"), own=True)
    assert not any("feature_names_in_" in vars(part) for part in iter_estimators(fitted))
    # The order in memory is another, and with it the last digit of a sum.
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
def test_names_stay_where_something_may_look_at_them(estimator: Any) -> None:
    estimator.fit(FRAME, Y)
    expected = estimator.predict_proba(FRAME).tolist()
    runtime = SklearnRuntime(estimator, _features(a="number", b="number", c="number"), own=True)
    assert runtime.predict("predict_proba", FRAME.to_dict("records")) == expected
    assert hasattr(estimator, "feature_names_in_")


def test_an_estimator_that_is_not_the_runtimes_own_is_left_alone() -> None:
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
        (sparse.csr_matrix([[0, 1.5], [0, 0]]), [[0.0, 1.5], [0.0, 0.0]]),
        (sparse.csr_array([[0, 1], [2, 0]]), [[0, 1], [2, 0]]),
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
def test_every_kind_of_output_becomes_plain_lists(output: Any, expected: Any) -> None:
    got = to_predictions(output, 2)
    assert got == expected
    assert json.loads(json.dumps(got, allow_nan=False)) == expected


@pytest.mark.parametrize("output", [np.zeros(3), np.float64(1), 1, None, [], "ab"])
def test_output_that_is_not_one_for_each_instance_is_the_models_fault(output: Any) -> None:
    with pytest.raises(ModelError, match="it must give one for each"):
        to_predictions(output, 2)


def test_parts_are_found_however_deep() -> None:
    forest = RandomForestClassifier(3, random_state=0).fit(X, Y)
    names = [type(part).__name__ for part in iter_estimators(make_pipeline(StandardScaler(), forest))]
    assert sorted(set(names)) == ["DecisionTreeClassifier", "Pipeline", "RandomForestClassifier", "StandardScaler"]
    assert describe(make_pipeline(StandardScaler(), forest)) == "Pipeline(StandardScaler, RandomForestClassifier)"


def test_categories_are_followed_to_the_column_they_come_from() -> None:
    table = pd.DataFrame({"x": [1.0, 2.0, 3.0], "s": ["a", "b", "a"], "t": ["c", "c", "d"]})
    inner = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder())
    estimator = make_pipeline(make_column_transformer((inner, ["t", "s"]), remainder="drop")).fit(table)
    assert find_categories(estimator, list(table)) == {"t": ["c", "d"], "s": ["a", "b"]}


# The slow way round: whatever passes the check of a contract, the runtime takes.

_MIXED = pd.DataFrame(
    {
        "number": X[:, 0],
        "holed": np.where(X[:, 1] > 1, np.nan, X[:, 1]),
        "code": RANDOM.integers(0, 3, 40),
        "text": np.array(["red", "green", None], dtype=object)[RANDOM.integers(0, 3, 40)],
        "words": np.array(["some words", "other words"])[RANDOM.integers(0, 2, 40)],
        "flag": X[:, 2] > 0,
    }
)


def _mixed(unknown: str) -> Any:
    return make_pipeline(
        make_column_transformer(
            (make_pipeline(SimpleImputer(), StandardScaler()), ["number", "holed"]),
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
    "open categories": (_mixed("ignore"), _rows(_MIXED)),
    "closed categories": (_mixed("error"), _rows(_MIXED)),
    "numbers of a frame": (LogisticRegression().fit(FRAME, Y), _rows(FRAME)),
    "numbers of an array": (make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y), X.tolist()),
    "boosting": (HistGradientBoostingClassifier(max_iter=2).fit(X, Y), X.tolist()),
    "texts": (TfidfVectorizer().fit(["some words", "other words"]), ["some words"]),
}


def _values(feature: Feature) -> st.SearchStrategy[Any]:
    kinds: dict[str, st.SearchStrategy[Any]] = {
        "number": st.floats(-1e100, 1e100) | st.integers(-(2**70), 2**70),
        "integer": st.integers(-(2**70), 2**70),
        "boolean": st.booleans(),
        "string": st.text(),
        "category": st.sampled_from(feature.categories or ("a", 1)),
    }
    return kinds[feature.kind] | st.none() if feature.nullable else kinds[feature.kind]


def _instances(given: Named | Array | Text) -> st.SearchStrategy[Any]:
    match given:
        case Named():
            return st.fixed_dictionaries({feature.name: _values(feature) for feature in given.features})
        case Array():
            value = _values(Feature(name="", kind=given.kind, nullable=given.nullable))
            return st.lists(value, min_size=given.shape[0], max_size=given.shape[0])
        case Text():
            return st.text()


@pytest.mark.parametrize("kind", FUZZED)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_what_passes_the_check_never_crashes_the_runtime(kind: str, data: st.DataObject) -> None:
    estimator, _ = FUZZED[kind]
    contract = CONTRACTS[kind]
    instances = data.draw(st.lists(_instances(contract.input), min_size=1, max_size=4))
    checked = check_instances(contract, instances)
    runtime = SklearnRuntime(estimator, contract.input)
    for method in contract.methods:
        predictions = runtime.predict(method, checked)
        assert len(predictions) == len(instances)
        json.dumps(predictions, allow_nan=False)


def _inferred(kind: str) -> Contract:
    estimator, example = FUZZED[kind]
    return infer(estimator, example, model=kind.replace(" ", "-"))


CONTRACTS = {kind: _inferred(kind) for kind in FUZZED}


def test_the_contracts_fuzzed_above_are_those_meant() -> None:
    closed, open_ = CONTRACTS["closed categories"].input, CONTRACTS["open categories"].input
    assert isinstance(closed, Named)
    assert isinstance(open_, Named)
    assert [feature.kind for feature in closed.features] == [
        "number", "number", "category", "category", "string", "boolean",
    ]  # fmt: skip
    assert [feature.kind for feature in open_.features] == [
        "number", "number", "integer", "string", "string", "boolean",
    ]  # fmt: skip
    assert CONTRACTS["texts"].methods == {"transform": Output(shape=(3,))}
