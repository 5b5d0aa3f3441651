"""An estimator that is packaged and loaded as a worker does predicts as it did before."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
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
from headrace.errors import InvalidInput
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store
from tests.support.packaged_models import add_model, assert_predicts_as, to_rows

X, Y = make_classification(80, 6, n_informative=4, n_classes=3, random_state=0)
R, T = make_regression(80, 6, random_state=0)
WORDS = np.array(["low", "middle", "high"])[Y]
TEXTS = ["cold wet rain", "warm dry sun", "rain and wind", "sun and sand"] * 10
WEATHER = np.array(["bad", "good", "bad", "good"] * 10)
IMAGES = np.random.default_rng(0).integers(0, 17, size=(40, 4, 5))
IRIS = load_iris(as_frame=True)


class _Penguins:
    """The palmerpenguins data: 344 rows of texts and numbers, with 19 missing values."""

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
    data = R if hasattr(estimator, "score") and "regress" in repr(estimator).lower() and kind != "search" else X
    manifest = add_model(tmp_path, estimator, data[:10].tolist())
    assert isinstance(manifest.contract.input, Array)
    assert manifest.contract.input.shape == (6,)
    assert manifest.format == "skops"
    assert_predicts_as(estimator, data, tmp_path, data.tolist())


@pytest.mark.parametrize("kind", ["logistic regression", "forest", "selected", "votes", "principal components"])
def test_an_estimator_fitted_on_a_frame_of_numbers_predicts_as_before(kind: str, tmp_path: Path) -> None:
    data = pd.DataFrame(X, columns=[f"feature {number}" for number in range(6)])
    estimator = ON_ARRAYS[kind]().fit(data, WORDS)
    manifest = add_model(tmp_path, estimator, to_rows(data[:10]))
    assert isinstance(manifest.contract.input, Named)
    assert [feature.kind for feature in manifest.contract.input.features] == ["number"] * 6
    assert_predicts_as(estimator, data, tmp_path, to_rows(data))


def test_the_order_of_features_in_an_instance_does_not_matter(tmp_path: Path) -> None:
    estimator = LogisticRegression().fit(IRIS.data / 10, IRIS.target)
    rows = to_rows(IRIS.data / 10)
    add_model(tmp_path, estimator, rows[:5])
    shuffled = [dict(reversed(row.items())) for row in rows]
    assert_predicts_as(estimator, IRIS.data / 10, tmp_path, shuffled)


def test_rows_without_names_get_the_names_of_the_estimator(tmp_path: Path) -> None:
    estimator = LogisticRegression().fit(IRIS.data / 10, IRIS.target)
    manifest = add_model(tmp_path, estimator, (IRIS.data / 10)[:5].to_numpy().tolist())
    assert isinstance(manifest.contract.input, Named)
    assert_predicts_as(estimator, IRIS.data / 10, tmp_path, to_rows(IRIS.data / 10))


def test_a_table_with_missing_values_and_mixed_types_predicts_as_before(
    penguins: _Penguins, tmp_path: Path
) -> None:
    estimator = penguins.pipeline(LogisticRegression(max_iter=500), handle_unknown="ignore")
    manifest = add_model(tmp_path, estimator, to_rows(penguins.x)[:20])
    assert isinstance(manifest.contract.input, Named)
    assert {feature.name: feature.kind for feature in manifest.contract.input.features} == {
        "island": "string",
        "sex": "string",
        **dict.fromkeys(penguins.numbers, "number"),
    }
    assert all(feature.nullable for feature in manifest.contract.input.features)
    assert manifest.contract.methods["predict"].classes == ("Adelie", "Chinstrap", "Gentoo")
    assert_predicts_as(estimator, penguins.x, tmp_path, to_rows(penguins.x))


def test_an_example_from_csv_gives_the_same_contract_as_from_json(penguins: _Penguins, tmp_path: Path) -> None:
    estimator = penguins.pipeline(GaussianNB(), sparse_output=False)
    from_json = add_model(tmp_path, estimator, to_rows(penguins.x)[:20])
    penguins.x[:20].to_csv(tmp_path / "example.csv", index=False)
    from_csv = package(
        Store(tmp_path / "store"), tmp_path / "model.skops", name="model", example=tmp_path / "example.csv"
    )
    assert from_csv.version == "2"
    assert from_csv.contract.input == from_json.contract.input
    assert from_csv.example == from_json.example


def test_categories_are_closed_only_if_the_model_fails_on_an_unseen_one(
    penguins: _Penguins, tmp_path: Path
) -> None:
    estimator = penguins.pipeline(LogisticRegression(max_iter=500), handle_unknown="error")
    manifest = add_model(tmp_path, estimator, to_rows(penguins.x)[:20])
    assert isinstance(manifest.contract.input, Named)
    categories = {feature.name: feature.categories for feature in manifest.contract.input.features}
    assert categories["island"] == ("Biscoe", "Dream", "Torgersen")
    assert categories["sex"] == ("female", "male")
    assert_predicts_as(estimator, penguins.x, tmp_path, to_rows(penguins.x))
    with pytest.raises(InvalidInput, match="category the model does not know"):
        check_instances(manifest.contract, [to_rows(penguins.x)[0] | {"island": "Atlantis"}])


def test_missing_values_are_allowed_only_if_the_model_accepts_them(tmp_path: Path) -> None:
    table = pd.DataFrame({"imputed": X[:, 0], "bare": X[:, 1]})
    estimator = make_pipeline(
        make_column_transformer((SimpleImputer(), ["imputed"]), remainder="passthrough"), LogisticRegression()
    ).fit(table, Y)
    manifest = add_model(tmp_path, estimator, to_rows(table[:5]))
    assert isinstance(manifest.contract.input, Named)
    assert {feature.name: feature.nullable for feature in manifest.contract.input.features} == {
        "imputed": True,
        "bare": False,
    }


def test_a_model_that_passes_a_missing_value_through_does_not_accept_it(tmp_path: Path) -> None:
    manifest = add_model(tmp_path, StandardScaler().fit(X), X[:5].tolist())
    assert manifest.contract.input == Array(shape=(6,))


def test_histogram_gradient_boosting_takes_missing_values(tmp_path: Path) -> None:
    with_gaps = X.copy()
    with_gaps[::7, 2] = np.nan
    estimator = HistGradientBoostingClassifier(max_iter=5).fit(with_gaps, Y)
    rows = [[None if np.isnan(value) else value for value in row] for row in with_gaps.tolist()]
    manifest = add_model(tmp_path, estimator, rows[:10])
    assert isinstance(manifest.contract.input, Array)
    assert manifest.contract.input.nullable
    assert_predicts_as(estimator, with_gaps, tmp_path, rows)


def test_histogram_gradient_boosting_takes_categories_of_a_frame(penguins: _Penguins, tmp_path: Path) -> None:
    table = penguins.x.astype({"island": "category", "sex": "category"})
    estimator = HistGradientBoostingClassifier(max_iter=5).fit(table, penguins.y)
    add_model(tmp_path, estimator, to_rows(penguins.x)[:20])
    assert_predicts_as(estimator, table, tmp_path, to_rows(penguins.x))


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
    manifest = add_model(tmp_path, estimator, to_rows(table[:10]))
    assert isinstance(manifest.contract.input, Named)
    code, age, flag = manifest.contract.input.features
    assert (code.kind, code.categories) == ("category", (0, 1, 2))
    assert (age.kind, flag.kind) == ("number", "boolean")
    assert_predicts_as(estimator, table, tmp_path, to_rows(table))


def test_texts_predict_as_before(tmp_path: Path) -> None:
    estimator = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TEXTS, WEATHER)
    manifest = add_model(tmp_path, estimator, TEXTS[:4])
    assert manifest.contract.input == Text()
    assert_predicts_as(estimator, TEXTS, tmp_path, TEXTS)


def test_a_text_among_other_features_predicts_as_before(tmp_path: Path) -> None:
    table = pd.DataFrame({"text": TEXTS, "number": np.arange(40.0)})
    estimator = make_pipeline(
        make_column_transformer((TfidfVectorizer(), "text"), (StandardScaler(), ["number"])), LogisticRegression()
    ).fit(table, WEATHER)
    manifest = add_model(tmp_path, estimator, to_rows(table[:5]))
    assert isinstance(manifest.contract.input, Named)
    assert manifest.contract.input.features[0].kind == "string"
    assert not manifest.contract.input.features[0].nullable
    assert_predicts_as(estimator, table, tmp_path, to_rows(table))


def test_images_predict_as_before(tmp_path: Path) -> None:
    estimator = make_pipeline(
        FunctionTransformer(np.reshape, kw_args={"shape": (-1, 20)}), LogisticRegression(max_iter=1000)
    ).fit(IMAGES, IMAGES[:, 0, 0] > 8)
    manifest = add_model(tmp_path, estimator, IMAGES[:3].tolist())
    assert isinstance(manifest.contract.input, Array)
    assert manifest.contract.input.shape == (4, 5)
    assert_predicts_as(estimator, IMAGES, tmp_path, IMAGES.tolist())


def test_the_contract_describes_several_outputs(tmp_path: Path) -> None:
    estimator = ON_ARRAYS["two classes of classes"]()
    manifest = add_model(tmp_path, estimator, X[:5].tolist())
    # Three classes and two: the lists of probabilities differ in length.
    assert manifest.contract.methods["predict"].shape == (2,)
    assert manifest.contract.methods["predict_proba"].shape == (2,)
