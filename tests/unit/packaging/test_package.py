"""A model's whole path: a real estimator is packaged, loaded by a worker, and predicts as it did before."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import DBSCAN, KMeans
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_iris, make_classification, make_regression
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from headrace.catalog.contract import Array, Named, Text
from headrace.catalog.validation import check_instances
from headrace.errors import InvalidInput, ModelError
from headrace_worker.manifest import Manifest
from headrace_worker.models.loader import load
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store

X, Y = make_classification(80, 6, n_informative=4, n_classes=3, random_state=0)
R, T = make_regression(80, 6, random_state=0)
WORDS = np.array(["low", "middle", "high"])[Y]
TEXTS = ["cold wet rain", "warm dry sun", "rain and wind", "sun and sand"] * 10
WEATHER = np.array(["bad", "good", "bad", "good"] * 10)
IMAGES = np.random.default_rng(0).integers(0, 17, size=(40, 4, 5))
IRIS = load_iris(as_frame=True)


class _Penguins:
    """palmerpenguins: 344 rows, text and numbers, 19 values missing."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # palmerpenguins 0.1 reads its data through pkg_resources
            from palmerpenguins import load_penguins

            table = load_penguins()
        self.x = table.drop(columns="species")
        self.y = table["species"]
        self.numbers = [name for name in self.x if name not in {"island", "sex"}]

    def pipeline(self, last: Any, **encoder: Any) -> Any:
        return make_pipeline(
            make_column_transformer(
                (make_pipeline(SimpleImputer(), StandardScaler()), self.numbers),
                (
                    make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(**encoder)),
                    ["island", "sex"],
                ),
            ),
            last,
        ).fit(self.x, self.y)


@pytest.fixture(scope="session")
def penguins() -> _Penguins:
    return _Penguins()


def _add(folder: Path, estimator: Any, instances: Any, **options: Any) -> Manifest:
    file, example = folder / "model.skops", folder / "example.json"
    skops.io.dump(estimator, file)
    example.write_text(json.dumps(instances))
    return package(Store(folder / "store"), file, name="model", example=example, **options)


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {name: None if pd.isna(value) else value for name, value in row.items()}
        for row in table.astype(object).to_dict("records")
    ]


def _plain(output: Any) -> Any:
    if isinstance(output, list):  # one array for each output
        return [list(row) for row in zip(*map(_plain, output), strict=True)]
    return (output.toarray() if hasattr(output, "toarray") else np.asarray(output)).tolist()


def _assert_predicts_as(estimator: Any, taken: Any, folder: Path, instances: Any) -> None:
    """All methods of the loaded version give what the estimator gives for `taken`, for one row and for all."""
    loaded = load(Store(folder / "store"), "model", "1")
    checked = check_instances(loaded.contract, instances)
    for method in loaded.manifest.methods:
        with np.errstate(divide="ignore"):  # the logarithm of a probability of 0
            expected = _plain(getattr(estimator, method)(taken))
        got = loaded.predict(method, checked)
        json.dumps(got, allow_nan=False)
        assert len(got) == len(instances)
        _assert_equal(got, expected)
        _assert_equal(loaded.predict(method, checked[:1]), expected[:1])


def _assert_equal(got: Any, expected: Any) -> None:
    if isinstance(expected, list):
        assert isinstance(got, list)
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            _assert_equal(one, other)
    elif isinstance(expected, float) and not np.isfinite(expected):
        assert got is None
    elif isinstance(expected, float):
        assert got == pytest.approx(expected, rel=1e-9, abs=1e-12)
    else:
        assert got == expected
        assert type(got) is type(expected)


ON_ARRAYS: dict[str, Callable[[], Any]] = {
    "logistic regression": lambda: LogisticRegression().fit(X, Y),
    "classes of strings": lambda: LogisticRegression().fit(X, WORDS),
    "support vectors": lambda: SVC().fit(X, WORDS),
    "forest": lambda: RandomForestClassifier(10, random_state=0).fit(X, WORDS),
    "forest of regressors": lambda: RandomForestRegressor(10, random_state=0).fit(R, T),
    "gradient boosting": lambda: GradientBoostingClassifier(n_estimators=5).fit(X, Y),
    "histogram gradient boosting": lambda: HistGradientBoostingRegressor(max_iter=5).fit(R, T),
    "stochastic gradient descent": lambda: SGDClassifier(loss="log_loss", random_state=0).fit(X, Y),
    "two targets": lambda: LinearRegression().fit(R, np.column_stack([T, -T])),
    "two classes of classes": lambda: MultiOutputClassifier(GaussianNB()).fit(X, np.column_stack([Y, Y > 0])),
    "forest of two outputs": lambda: RandomForestClassifier(5, random_state=0).fit(X, np.column_stack([Y, Y > 0])),
    "outliers": lambda: IsolationForest(n_estimators=10, random_state=0).fit(X),
    "principal components": lambda: PCA(3).fit(X),
    "clusters": lambda: KMeans(3, n_init=1, random_state=0).fit(X),
    "neighbours": lambda: KNeighborsClassifier().fit(X, Y),
    "perceptron": lambda: MLPClassifier((5,), max_iter=1000, tol=0.1, random_state=0).fit(X, Y),
    "gaussian process": lambda: GaussianProcessRegressor(random_state=0).fit(R, T),
    "calibrated": lambda: CalibratedClassifierCV(GaussianNB()).fit(X, Y),
    "selected": lambda: make_pipeline(SelectKBest(k=3), StandardScaler(), LogisticRegression()).fit(X, Y),
    "search": lambda: GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}, scoring="accuracy").fit(X, WORDS),
    "votes": lambda: VotingClassifier([("a", GaussianNB()), ("b", DecisionTreeClassifier())], voting="soft").fit(
        X, WORDS
    ),
    "stack": lambda: StackingClassifier([("a", GaussianNB()), ("b", DecisionTreeClassifier())]).fit(X, WORDS),
}


@pytest.mark.parametrize("kind", ON_ARRAYS)
def test_an_estimator_fitted_on_arrays_predicts_as_before(kind: str, tmp_path: Path) -> None:
    estimator = ON_ARRAYS[kind]()
    taken = R if hasattr(estimator, "score") and "regress" in repr(estimator).lower() and kind != "search" else X
    manifest = _add(tmp_path, estimator, taken[:10].tolist())
    assert isinstance(manifest.contract.input, Array)
    assert manifest.contract.input.shape == (6,)
    assert manifest.format == "skops"
    _assert_predicts_as(estimator, taken, tmp_path, taken.tolist())


@pytest.mark.parametrize("kind", ["logistic regression", "forest", "selected", "votes", "principal components"])
def test_an_estimator_fitted_on_a_frame_of_numbers_predicts_as_before(kind: str, tmp_path: Path) -> None:
    taken = pd.DataFrame(X, columns=[f"feature {number}" for number in range(6)])
    estimator = ON_ARRAYS[kind]().fit(taken, WORDS)
    manifest = _add(tmp_path, estimator, _rows(taken[:10]))
    assert isinstance(manifest.contract.input, Named)
    assert [feature.kind for feature in manifest.contract.input.features] == ["number"] * 6
    _assert_predicts_as(estimator, taken, tmp_path, _rows(taken))


def test_order_of_features_in_an_instance_does_not_matter(tmp_path: Path) -> None:
    estimator = LogisticRegression().fit(IRIS.data / 10, IRIS.target)
    rows = _rows(IRIS.data / 10)
    _add(tmp_path, estimator, rows[:5])
    shuffled = [dict(reversed(row.items())) for row in rows]
    _assert_predicts_as(estimator, IRIS.data / 10, tmp_path, shuffled)


def test_rows_without_names_get_the_names_of_the_estimator(tmp_path: Path) -> None:
    estimator = LogisticRegression().fit(IRIS.data / 10, IRIS.target)
    manifest = _add(tmp_path, estimator, (IRIS.data / 10)[:5].to_numpy().tolist())
    assert isinstance(manifest.contract.input, Named)
    _assert_predicts_as(estimator, IRIS.data / 10, tmp_path, _rows(IRIS.data / 10))


def test_a_table_with_missing_values_and_mixed_types_predicts_as_before(
    penguins: _Penguins, tmp_path: Path
) -> None:
    estimator = penguins.pipeline(LogisticRegression(max_iter=500), handle_unknown="ignore")
    manifest = _add(tmp_path, estimator, _rows(penguins.x)[:20])
    assert isinstance(manifest.contract.input, Named)
    assert {feature.name: feature.kind for feature in manifest.contract.input.features} == {
        "island": "string",
        "sex": "string",
        **dict.fromkeys(penguins.numbers, "number"),
    }
    assert all(feature.nullable for feature in manifest.contract.input.features)
    assert manifest.contract.methods["predict"].classes == ("Adelie", "Chinstrap", "Gentoo")
    _assert_predicts_as(estimator, penguins.x, tmp_path, _rows(penguins.x))


def test_an_example_from_csv_gives_the_same_contract_as_from_json(penguins: _Penguins, tmp_path: Path) -> None:
    estimator = penguins.pipeline(GaussianNB(), sparse_output=False)
    from_json = _add(tmp_path, estimator, _rows(penguins.x)[:20])
    penguins.x[:20].to_csv(tmp_path / "example.csv", index=False)
    from_csv = package(
        Store(tmp_path / "store"), tmp_path / "model.skops", name="model", example=tmp_path / "example.csv"
    )
    assert from_csv.version == "2"
    assert from_csv.contract.input == from_json.contract.input
    assert from_csv.example == from_json.example


def test_categories_are_closed_only_where_an_unseen_one_makes_the_model_fail(
    penguins: _Penguins, tmp_path: Path
) -> None:
    estimator = penguins.pipeline(LogisticRegression(max_iter=500), handle_unknown="error")
    manifest = _add(tmp_path, estimator, _rows(penguins.x)[:20])
    assert isinstance(manifest.contract.input, Named)
    known = {feature.name: feature.categories for feature in manifest.contract.input.features}
    assert known["island"] == ("Biscoe", "Dream", "Torgersen")
    assert known["sex"] == ("female", "male")
    _assert_predicts_as(estimator, penguins.x, tmp_path, _rows(penguins.x))
    with pytest.raises(InvalidInput, match="category the model does not know"):
        check_instances(manifest.contract, [_rows(penguins.x)[0] | {"island": "Atlantis"}])


def test_missing_values_are_allowed_only_where_the_model_takes_them(tmp_path: Path) -> None:
    table = pd.DataFrame({"imputed": X[:, 0], "bare": X[:, 1]})
    estimator = make_pipeline(
        make_column_transformer((SimpleImputer(), ["imputed"]), remainder="passthrough"), LogisticRegression()
    ).fit(table, Y)
    manifest = _add(tmp_path, estimator, _rows(table[:5]))
    assert isinstance(manifest.contract.input, Named)
    assert {feature.name: feature.nullable for feature in manifest.contract.input.features} == {
        "imputed": True,
        "bare": False,
    }


def test_a_model_that_only_hands_a_missing_value_on_does_not_take_it(tmp_path: Path) -> None:
    manifest = _add(tmp_path, StandardScaler().fit(X), X[:5].tolist())
    assert manifest.contract.input == Array(shape=(6,))


def test_histogram_gradient_boosting_takes_missing_values(tmp_path: Path) -> None:
    holed = X.copy()
    holed[::7, 2] = np.nan
    estimator = HistGradientBoostingClassifier(max_iter=5).fit(holed, Y)
    rows = [[None if np.isnan(value) else value for value in row] for row in holed.tolist()]
    manifest = _add(tmp_path, estimator, rows[:10])
    assert isinstance(manifest.contract.input, Array)
    assert manifest.contract.input.nullable
    _assert_predicts_as(estimator, holed, tmp_path, rows)


def test_histogram_gradient_boosting_takes_categories_of_a_frame(penguins: _Penguins, tmp_path: Path) -> None:
    table = penguins.x.astype({"island": "category", "sex": "category"})
    estimator = HistGradientBoostingClassifier(max_iter=5).fit(table, penguins.y)
    _add(tmp_path, estimator, _rows(penguins.x)[:20])
    _assert_predicts_as(estimator, table, tmp_path, _rows(penguins.x))


def test_codes_of_an_encoder_are_integers_and_other_integers_are_numbers(tmp_path: Path) -> None:
    table = pd.DataFrame({"code": Y.astype(int), "age": (X[:, 0] * 10).astype(int), "flag": X[:, 1] > 0})
    estimator = make_pipeline(
        make_column_transformer(
            (OneHotEncoder(handle_unknown="error"), ["code"]),
            (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), ["flag"]),
            remainder="passthrough",
        ),
        DecisionTreeClassifier(random_state=0),
    ).fit(table, WORDS)
    manifest = _add(tmp_path, estimator, _rows(table[:10]))
    assert isinstance(manifest.contract.input, Named)
    code, age, flag = manifest.contract.input.features
    assert (code.kind, code.categories) == ("category", (0, 1, 2))
    assert (age.kind, flag.kind) == ("number", "boolean")
    _assert_predicts_as(estimator, table, tmp_path, _rows(table))


def test_texts_predict_as_before(tmp_path: Path) -> None:
    estimator = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TEXTS, WEATHER)
    manifest = _add(tmp_path, estimator, TEXTS[:4])
    assert manifest.contract.input == Text()
    _assert_predicts_as(estimator, TEXTS, tmp_path, TEXTS)


def test_a_bag_of_words_is_a_dense_list(tmp_path: Path) -> None:
    estimator = TfidfVectorizer().fit(TEXTS)
    manifest = _add(tmp_path, estimator, TEXTS[:4])
    assert manifest.contract.methods["transform"].shape == (len(estimator.vocabulary_),)
    _assert_predicts_as(estimator, TEXTS, tmp_path, TEXTS)


def test_a_text_among_other_features_predicts_as_before(tmp_path: Path) -> None:
    table = pd.DataFrame({"text": TEXTS, "number": np.arange(40.0)})
    estimator = make_pipeline(
        make_column_transformer((TfidfVectorizer(), "text"), (StandardScaler(), ["number"])), LogisticRegression()
    ).fit(table, WEATHER)
    manifest = _add(tmp_path, estimator, _rows(table[:5]))
    assert isinstance(manifest.contract.input, Named)
    assert manifest.contract.input.features[0].kind == "string"
    assert not manifest.contract.input.features[0].nullable
    _assert_predicts_as(estimator, table, tmp_path, _rows(table))


def test_images_predict_as_before(tmp_path: Path) -> None:
    estimator = make_pipeline(
        FunctionTransformer(np.reshape, kw_args={"shape": (-1, 20)}), LogisticRegression(max_iter=1000)
    ).fit(IMAGES, IMAGES[:, 0, 0] > 8)
    manifest = _add(tmp_path, estimator, IMAGES[:3].tolist())
    assert isinstance(manifest.contract.input, Array)
    assert manifest.contract.input.shape == (4, 5)
    _assert_predicts_as(estimator, IMAGES, tmp_path, IMAGES.tolist())


def test_several_outputs_are_told_in_the_contract(tmp_path: Path) -> None:
    estimator = ON_ARRAYS["two classes of classes"]()
    manifest = _add(tmp_path, estimator, X[:5].tolist())
    # Three classes and two: the lists of probabilities differ in length.
    assert manifest.contract.methods["predict"].shape == (2,)
    assert manifest.contract.methods["predict_proba"].shape == (2,)


def test_the_method_asked_for_is_the_default(tmp_path: Path) -> None:
    manifest = _add(tmp_path, ON_ARRAYS["forest"](), X[:5].tolist(), method="predict_proba")
    assert manifest.contract.method == "predict_proba"
    assert manifest.methods == ("predict_proba", "predict", "predict_log_proba")
    assert manifest.contract.methods["predict_proba"].classes == ("high", "low", "middle")


def test_a_method_the_estimator_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="SVC has no method 'predict_proba'; it has predict, decision_function"):
        _add(tmp_path, ON_ARRAYS["support vectors"](), X[:5].tolist(), method="predict_proba")


def test_a_clusterer_that_cannot_predict_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="DBSCAN cannot predict for new instances"):
        _add(tmp_path, DBSCAN().fit(X), X[:5].tolist())


def test_an_estimator_that_was_never_fitted_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot predict the example: NotFittedError"):
        _add(tmp_path, LogisticRegression(), X[:5].tolist())


def test_an_example_of_the_wrong_width_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="X has 5 features, but LogisticRegression is expecting 6"):
        _add(tmp_path, ON_ARRAYS["logistic regression"](), X[:5, :5].tolist())


def test_an_example_that_misspells_a_feature_is_refused(tmp_path: Path) -> None:
    estimator = LogisticRegression().fit(pd.DataFrame({"age": X[:, 0], "weight": X[:, 1]}), Y)
    with pytest.raises(ModelError, match="has no 'weight', which the model was fitted with; is it 'wieght' there"):
        _add(tmp_path, estimator, [{"age": 1, "wieght": 2}])
    with pytest.raises(ModelError, match="has 'target', which the model was not fitted with"):
        _add(tmp_path, estimator, [{"age": 1, "weight": 2, "target": 3}])


def test_an_example_of_objects_that_differ_is_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame({"age": X[:, 0], "weight": X[:, 1]})
    for estimator in (LogisticRegression().fit(frame, Y), LogisticRegression().fit(X[:, :2], Y)):
        with pytest.raises(
            ModelError, match="instance 1 of the example has other features than the rest: 'weight'"
        ):
            _add(tmp_path, estimator, [{"age": 1, "weight": 2}, {"age": 1}])
    with pytest.raises(ModelError, match="mixes objects, lists and texts"):
        _add(tmp_path, LogisticRegression().fit(X[:, :2], Y), [{"age": 1, "weight": 2}, [1, 2]])


@pytest.mark.parametrize("instances", [[[1, 2], [3]], [[1], [[2]]], [[], [1]], [1, [2]]])
def test_an_example_of_lists_that_differ_is_refused(instances: list[Any], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the example's lists differ in length or depth"):
        _add(tmp_path, LogisticRegression().fit(X[:, :2], Y), instances)


def test_a_corrected_contract_is_taken_instead_of_the_inferred_one(tmp_path: Path) -> None:
    estimator = RandomForestClassifier(5, random_state=0).fit(X, Y)
    inferred = _add(tmp_path, estimator, X[:5].tolist())
    assert isinstance(inferred.contract.input, Array)
    assert inferred.contract.input.nullable
    shown = json.loads((tmp_path / "store/model/1/manifest.json").read_text())
    shown["contract"]["input"] = {"type": "array", "shape": [6]}
    (tmp_path / "contract.json").write_text(json.dumps(shown))
    corrected = _add(tmp_path, estimator, X[:5].tolist(), contract=tmp_path / "contract.json")
    assert corrected.contract.input == Array(shape=(6,))
    assert corrected.contract.methods == inferred.contract.methods


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"input": {"type": "named"}}', '{"input": {"type": "tensor"}}', "[" * 9999]
)
def test_a_corrected_contract_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "contract.json").write_text(text)
    with pytest.raises(ModelError, match=r"contract.json cannot be used"):
        _add(tmp_path, ON_ARRAYS["clusters"](), X[:5].tolist(), contract=tmp_path / "contract.json")


def test_an_example_that_a_corrected_contract_refuses_is_refused(tmp_path: Path) -> None:
    (tmp_path / "contract.json").write_text('{"input": {"type": "array", "shape": [6], "kind": "integer"}}')
    with pytest.raises(ModelError, match="the example does not fit the contract: instance 0"):
        _add(tmp_path, ON_ARRAYS["clusters"](), X[:5].tolist(), contract=tmp_path / "contract.json")


def test_a_pickle_is_read_only_where_it_is_trusted_and_then_stored_as_skops(tmp_path: Path) -> None:
    estimator = ON_ARRAYS["forest"]()
    (tmp_path / "example.json").write_text(json.dumps(X[:5].tolist()))
    store, file = Store(tmp_path / "store"), tmp_path / "model.joblib"
    joblib.dump(estimator, file, compress=3)
    with pytest.raises(ModelError, match=r"model.joblib is a pickle.*--trust-pickle"):
        package(store, file, name="model", example=tmp_path / "example.json")
    manifest = package(store, file, name="model", example=tmp_path / "example.json", trust_pickle=True)
    assert manifest.format == "skops"
    _assert_predicts_as(estimator, X, tmp_path, X.tolist())


def test_what_skops_cannot_hold_stays_a_pickle_and_says_so(tmp_path: Path) -> None:
    estimator = make_pipeline(FunctionTransformer(np.gradient, kw_args={"axis": 1}), LogisticRegression()).fit(
        X, Y
    )
    (tmp_path / "example.json").write_text(json.dumps(X[:5].tolist()))
    store, file = Store(tmp_path / "store"), tmp_path / "model.pkl"
    joblib.dump(estimator, file)
    manifest = package(store, file, name="model", example=tmp_path / "example.json", trust_pickle=True)
    assert manifest.format == "joblib"
    with pytest.raises(ModelError, match=r"model@1 is stored as joblib.*HEADRACE_TRUST_PICKLE"):
        load(store, "model", "1")
    loaded = load(store, "model", "1", trust_pickle=True)
    assert loaded.predict("predict", X[:5].tolist()) == estimator.predict(X[:5]).tolist()


def test_a_name_that_cannot_be_a_queue_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="a model's name"):
        package(Store(tmp_path), tmp_path / "none.skops", name="../up", example=tmp_path / "none.json")
