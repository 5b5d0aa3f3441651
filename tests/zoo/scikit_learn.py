"""Every estimator that `sklearn.utils.all_estimators` names, and what it is fitted on."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from sklearn.base import is_classifier, is_clusterer, is_outlier_detector, is_regressor
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import f_regression
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils import all_estimators

from tests.zoo.case import Case, Fitted, counts, labels, number_frame, numbers, positive, targets

#: The arguments of estimators that have no defaults, or too slow ones.
_ARGUMENTS: dict[str, Callable[[], dict[str, Any]]] = {
    "ClassifierChain": lambda: {"estimator": LogisticRegression(max_iter=1_000)},
    "ColumnTransformer": lambda: {"transformers": [("scaled", StandardScaler(), ["age", "income"])]},
    "FeatureUnion": lambda: {"transformer_list": [("pca", PCA(2)), ("scaled", StandardScaler())]},
    "FixedThresholdClassifier": lambda: {"estimator": LogisticRegression(max_iter=1_000), "threshold": 0.3},
    "FrozenEstimator": lambda: {"estimator": LogisticRegression(max_iter=1_000).fit(numbers(), labels(numbers()))},
    "GenericUnivariateSelect": lambda: {"mode": "k_best", "param": 2},
    "GridSearchCV": lambda: {"estimator": Ridge(), "param_grid": {"alpha": [0.1, 1.0]}},
    "KNeighborsTransformer": lambda: {"n_neighbors": 3},
    "LatentDirichletAllocation": lambda: {"n_components": 3},
    "MLPClassifier": lambda: {"hidden_layer_sizes": (8,)},
    "MLPRegressor": lambda: {"hidden_layer_sizes": (8,)},
    "MultiOutputClassifier": lambda: {"estimator": DecisionTreeClassifier(random_state=0)},
    "MultiOutputRegressor": lambda: {"estimator": Ridge()},
    "OneVsOneClassifier": lambda: {"estimator": LogisticRegression(max_iter=1_000)},
    "OneVsRestClassifier": lambda: {"estimator": LogisticRegression(max_iter=1_000)},
    "OutputCodeClassifier": lambda: {"estimator": LogisticRegression(max_iter=1_000), "random_state": 0},
    "Pipeline": lambda: {"steps": [("scaled", StandardScaler()), ("ridge", Ridge())]},
    "RFE": lambda: {"estimator": Ridge(), "n_features_to_select": 2},
    "RFECV": lambda: {"estimator": Ridge()},
    "RadiusNeighborsClassifier": lambda: {"radius": 100.0},
    "RadiusNeighborsRegressor": lambda: {"radius": 100.0},
    "RandomizedSearchCV": lambda: {
        "estimator": Ridge(),
        "param_distributions": {"alpha": [0.1, 1.0]},
        "n_iter": 2,
        "random_state": 0,
    },
    "RegressorChain": lambda: {"estimator": Ridge()},
    "SelectFdr": lambda: {"score_func": f_regression, "alpha": 0.9},
    "SelectFpr": lambda: {"score_func": f_regression, "alpha": 0.9},
    "SelectFromModel": lambda: {"estimator": Ridge()},
    "SelectFwe": lambda: {"score_func": f_regression, "alpha": 0.9},
    "SelectKBest": lambda: {"score_func": f_regression, "k": 2},
    "SelectPercentile": lambda: {"score_func": f_regression, "percentile": 50},
    "SelfTrainingClassifier": lambda: {"estimator": LogisticRegression(max_iter=1_000)},
    "SequentialFeatureSelector": lambda: {"estimator": Ridge(), "n_features_to_select": 2},
    "SparseCoder": lambda: {"dictionary": np.eye(4)},
    "SparseRandomProjection": lambda: {"n_components": 3, "random_state": 0},
    "GaussianRandomProjection": lambda: {"n_components": 3, "random_state": 0},
    "StackingClassifier": lambda: {
        "estimators": [("forest", RandomForestClassifier(5, random_state=0)), ("tree", DecisionTreeClassifier())]
    },
    "StackingRegressor": lambda: {"estimators": [("ridge", Ridge()), ("svr", SVR())]},
    "TunedThresholdClassifierCV": lambda: {"estimator": LogisticRegression(max_iter=1_000)},
    "VotingClassifier": lambda: {
        "estimators": [("forest", RandomForestClassifier(5, random_state=0)), ("linear", LogisticRegression())],
        "voting": "soft",
    },
    "VotingRegressor": lambda: {"estimators": [("ridge", Ridge()), ("svr", SVR())]},
    "BernoulliRBM": lambda: {"n_components": 3, "random_state": 0},
    "LocalOutlierFactor": lambda: {"novelty": True},
    "DictionaryLearning": lambda: {"n_components": 2, "max_iter": 20},
    "MiniBatchDictionaryLearning": lambda: {"n_components": 2, "max_iter": 20},
    "SparsePCA": lambda: {"n_components": 2, "max_iter": 20},
    "MiniBatchSparsePCA": lambda: {"n_components": 2, "max_iter": 20},
    "NMF": lambda: {"n_components": 2},
    "MiniBatchNMF": lambda: {"n_components": 2},
}

#: Estimators of numbers from 0 to 1, of small integers, of one column, and of several targets or two classes.
_POSITIVE = {
    "AdditiveChi2Sampler",
    "BernoulliRBM",
    "ComplementNB",
    "LatentDirichletAllocation",
    "MiniBatchNMF",
    "MultinomialNB",
    "NMF",
    "SkewedChi2Sampler",
    "TfidfTransformer",
}
_COUNTS = {"CategoricalNB", "OneHotEncoder", "OrdinalEncoder", "TargetEncoder"}
_ONE_COLUMN = {"IsotonicRegression"}
_FRAMES = {"ColumnTransformer"}
_MULTI = {
    "CCA",
    "ClassifierChain",
    "MultiOutputClassifier",
    "MultiOutputRegressor",
    "MultiTaskElasticNet",
    "MultiTaskElasticNetCV",
    "MultiTaskLasso",
    "MultiTaskLassoCV",
    "PLSCanonical",
    "PLSRegression",
    "PLSSVD",
    "RegressorChain",
}
_TWO_CLASSES = {"FixedThresholdClassifier", "TunedThresholdClassifierCV"}
_POSITIVE_TARGETS = {"GammaRegressor", "PoissonRegressor", "TweedieRegressor"}

#: Estimators with inputs of other kinds, which other modules of the zoo have, and those whose input is no table.
_ELSEWHERE = {
    "CountVectorizer",
    "DictVectorizer",
    "FeatureHasher",
    "HalvingGridSearchCV",
    "HalvingRandomSearchCV",
    "HashingVectorizer",
    "TfidfVectorizer",
}
_NO_TABLE = {
    "KernelCenterer",
    "LabelBinarizer",
    "LabelEncoder",
    "MultiLabelBinarizer",
    "PatchExtractor",
    "ClassicalMDS",
}


def cases() -> Iterator[Case]:
    """Yield a case for each estimator."""
    for name, kind in all_estimators():
        if name not in _ELSEWHERE | _NO_TABLE:
            yield Case(group=f"scikit-learn: {_group(kind)}", name=name, fit=partial(_fit, name, kind))


def _group(kind: Any) -> str:
    try:
        instance = kind(**_ARGUMENTS.get(kind.__name__, dict)())
    except TypeError:
        return "other"
    tests = (is_classifier, is_regressor, is_clusterer, is_outlier_detector)
    names = ("classifiers", "regressors", "clusterers", "outlier detectors")
    matching = (name for name, test in zip(names, tests, strict=True) if test(instance))
    return next(matching, "transformers and others")


def _fit(name: str, kind: Any) -> Fitted:
    estimator = kind(**_ARGUMENTS.get(name, dict)())
    if "random_state" in estimator.get_params(deep=False):
        estimator.set_params(random_state=0)
    table = _table(name, estimator)
    target = _target(name, estimator, table)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator.fit(table, target)
    return Fitted(estimator, table)


def _table(name: str, estimator: Any) -> Any:
    if name in _POSITIVE:
        return positive()
    if name in _COUNTS:
        return counts()
    if name in _ONE_COLUMN:
        return numbers(1)
    if name in _FRAMES or ((is_classifier(estimator) or is_regressor(estimator)) and len(name) % 2):
        return number_frame()
    return numbers()


def _target(name: str, estimator: Any, table: Any) -> Any:
    if name in _MULTI:
        first = targets(table)
        if is_classifier(estimator):
            return np.column_stack([first > np.median(first), first < np.quantile(first, 0.3)])
        return np.column_stack([first, first**2])
    if name in _TWO_CLASSES:
        return labels(table) > 0
    if is_regressor(estimator) or name.startswith("Select") or name in {"RFE", "RFECV", "GenericUnivariateSelect"}:
        target = targets(table)
        return np.abs(target) + 1 if name in _POSITIVE_TARGETS else target
    return labels(table)
