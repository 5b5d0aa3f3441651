"""Forged arrays that native code would index end no process: each file is refused before it predicts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.datasets import load_iris
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import SGDClassifier
from sklearn.neighbors import KernelDensity, KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, SplineTransformer
from sklearn.svm import SVC, SVR, OneClassSVM
from sklearn.tree import DecisionTreeClassifier

from headrace.errors import ModelError
from headrace_worker.packaging.package import package
from headrace_worker.store import artifact
from headrace_worker.store.store import Store

X, Y = load_iris(return_X_y=True)


def load(model: Any) -> Any:
    data = artifact.dump(model, "skops")
    return artifact.load(data, "skops", "forged", max_bytes=10_000_000, trust_pickle=False)


def _edit_state(holder: Any, edit: Callable[[list[Any]], None]) -> None:
    state = [value.copy() if isinstance(value, np.ndarray) else value for value in holder.__getstate__()]
    edit(state)
    holder.__setstate__(tuple(state))


def _points(algorithm: str, edit: Callable[[list[Any]], None]) -> Any:
    model = KNeighborsClassifier(algorithm=algorithm, leaf_size=5).fit(X, Y)
    _edit_state(model._tree, edit)
    return model


def _set(number: int, key: Any, value: Any) -> Callable[[list[Any]], None]:
    def edit(state: list[Any]) -> None:
        state[number][key] = value

    return edit


def _set_field(name: str, key: Any, value: Any) -> Callable[[list[Any]], None]:
    def edit(state: list[Any]) -> None:
        state[2][name][key] = value

    return edit


def _truncate(number: int) -> Callable[[list[Any]], None]:
    def edit(state: list[Any]) -> None:
        state[number] = state[number][:-1].copy()

    return edit


def _with(model: Any, **attributes: Any) -> Any:
    for name, value in attributes.items():
        setattr(model, name, value)
    return model


def _wide_tree() -> Any:
    return DecisionTreeClassifier(random_state=0).fit(np.hstack([np.zeros((150, 900)), X]), Y)


def _forest_of_wide_trees() -> Any:
    model = RandomForestClassifier(2, random_state=0).fit(X, Y)
    model.estimators_ = [_wide_tree(), _wide_tree()]
    return model


def _calibrated_forest() -> Any:
    model = CalibratedClassifierCV(RandomForestClassifier(2, random_state=0), cv=2).fit(X, Y)
    model.calibrated_classifiers_[0].estimator.estimators_ = [_wide_tree(), _wide_tree()]
    return model


def _boosting_of_more_classes() -> Any:
    model = GradientBoostingClassifier(n_estimators=2, random_state=0).fit(X, Y)
    model.estimators_ = np.hstack([model.estimators_] * 4)
    return model


def _hist_boosting(**forged: Any) -> Any:
    categories = np.arange(150)[:, None] % 5
    model = HistGradientBoostingClassifier(max_iter=2, categorical_features=[0], min_samples_leaf=2)
    model.fit(categories, categories.ravel() > 2)
    for name, value in forged.items():
        if name == "raw_left_cat_bitsets":
            model._predictors[0][0].raw_left_cat_bitsets = value
        else:
            setattr(model._bin_mapper, name, value)
    return model


def _vectorizer() -> Any:
    model = make_pipeline(CountVectorizer(), SGDClassifier()).fit(["a cat", "the dog"] * 5, [0, 1] * 5)
    model[0].vocabulary_ = {word: number * 10**6 for word, number in model[0].vocabulary_.items()}
    return model


def _sparse_coefficients() -> Any:
    model = SGDClassifier().fit(X, Y).sparsify()
    model.coef_ = sparse.csr_matrix(model.coef_)
    model.coef_.indices[0] = 10**6
    return model


def _spline() -> Any:
    model = SplineTransformer().fit(X)
    model.bsplines_[0].k = 40
    return model


def _kernel_density() -> Any:
    model = KernelDensity().fit(X)
    _edit_state(model.tree_, _set_field("idx_end", 0, 10**9))
    return model


FORGED: dict[str, Callable[[], Any]] = {
    "an order of a KD tree": lambda: _points("kd_tree", _set(1, 0, 10**9)),
    "an order of a ball tree": lambda: _points("ball_tree", _set(1, 0, -(10**9))),
    "a short order": lambda: _points("kd_tree", _truncate(1)),
    "ranges of nodes": lambda: _points("ball_tree", _set_field("idx_end", 0, 10**9)),
    "last nodes with children": lambda: _points("kd_tree", _set_field("is_leaf", slice(None), 0)),
    "short nodes": lambda: _points("kd_tree", _truncate(2)),
    "a short bound": lambda: _points("kd_tree", _truncate(3)),
    "a density": _kernel_density,
    "classes of neighbours": lambda: _with(
        KNeighborsClassifier(algorithm="brute").fit(X, Y), _y=np.full(150, 10**7)
    ),
    "short neighbours": lambda: _with(KNeighborsClassifier(algorithm="brute").fit(X, Y), _fit_X=X[:, :1].copy()),
    "support by class": lambda: _with(SVC().fit(X, Y), _n_support=np.array([10**6, 10**6, 10**6], np.int32)),
    "negative support": lambda: _with(SVC().fit(X, Y), _n_support=np.array([-1, 1, 60], np.int32)),
    "fewer features of support": lambda: _with(SVR().fit(X, Y), support_vectors_=np.zeros((1, 1))),
    "short coefficients": lambda: _with(OneClassSVM().fit(X), _dual_coef_=np.zeros((1, 1))),
    "short intercepts": lambda: _with(SVC().fit(X, Y), _intercept_=np.zeros(1)),
    "support of a kernel": lambda: _with(
        model := SVC(kernel="precomputed").fit(X @ X.T, Y), support_=model.support_ + 10**6
    ),
    "a forest of wide trees": _forest_of_wide_trees,
    "a forest within a calibration": _calibrated_forest,
    "stages of more classes": _boosting_of_more_classes,
    "unknown categorical features": lambda: _hist_boosting(is_categorical_=np.zeros(1, dtype=np.uint8)),
    "no bins": lambda: _hist_boosting(is_categorical_=np.zeros(0, dtype=np.uint8)),
    "narrow sets of categories": lambda: _hist_boosting(raw_left_cat_bitsets=np.zeros((1, 1), np.uint32)),
    "a vocabulary": _vectorizer,
    "sparse coefficients": _sparse_coefficients,
    "codes of categories": lambda: _with(OneHotEncoder().fit([["a"], ["b"]]), _n_features_outs=[1]),
    "a spline": _spline,
    "narrow centres": lambda: _with(KMeans(2, n_init=1).fit(X), cluster_centers_=np.zeros((2, 1))),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_arrays_are_refused_when_the_file_is_loaded(name: str):
    with pytest.raises(ModelError, match=r"^forged (holds .*; the file is damaged or forged|cannot be loaded)"):
        load(FORGED[name]())


@pytest.mark.parametrize(
    "model",
    [
        KNeighborsClassifier(algorithm="kd_tree"),
        KNeighborsClassifier(algorithm="ball_tree", metric="haversine"),
        KNeighborsClassifier(algorithm="ball_tree", metric="mahalanobis", metric_params={"VI": np.eye(2)}),
        KNeighborsClassifier(algorithm="ball_tree", p=3, metric_params={"w": np.ones(2)}),
        KNeighborsClassifier(algorithm="brute"),
        SVC(probability=True),
        SVC(break_ties=True),
        GradientBoostingClassifier(n_estimators=2, init="zero"),
        GradientBoostingClassifier(n_estimators=2),
        CalibratedClassifierCV(RandomForestClassifier(2), cv=2),
        make_pipeline(SplineTransformer(), OneHotEncoder(handle_unknown="ignore", min_frequency=3), SVC()),
    ],
    ids=repr,
)
@pytest.mark.filterwarnings("ignore")
def test_honest_arrays_pass(model: Any):
    data = X[:, :2] / 10
    fitted = model.fit(data, Y)
    assert (load(fitted).predict(data) == fitted.predict(data)).all()


def test_a_forged_file_is_not_packaged(tmp_path: Path):
    model = _points("kd_tree", _set(1, slice(None), 2**40))
    file, example = tmp_path / "forged.skops", tmp_path / "example.json"
    file.write_bytes(artifact.dump(model, "skops"))
    example.write_text("[[5, 3, 1, 0], [6, 3, 5, 2]]")
    with pytest.raises(ModelError, match="damaged or forged"):
        package(Store(tmp_path / "store"), file, name="forged", example=example)
