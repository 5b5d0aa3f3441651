"""Models whose labels or answers are of another kind: labels of each type, several outputs, sparse answers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.experimental import enable_halving_search_cv  # noqa: F401  # HalvingGridSearchCV
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, TunedThresholdClassifierCV
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from tests.zoo.case import Case, Fitted, labels, mixed_frame, number_frame, numbers, targets


def cases() -> Iterator[Case]:
    """Yield the cases."""
    for name, fit in _LABELS.items():
        yield Case(group="labels and several outputs", name=name, fit=fit)
    for name, fit in _META.items():
        yield Case(group="meta-estimators", name=name, fit=fit)


class BytesRule:
    """A model of one's own whose labels are bytes, which scikit-learn no longer has."""

    def predict(self, rows: Any) -> Any:
        """Return a label for each row."""
        return np.where(np.asarray(rows)[:, 0] > 0, b"gold", b"basic")


def _fit(model: Any, table: Any, target: Any, **options: Any) -> Fitted:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(table, target)
    return Fitted(model, table, options)


def _named(names: Any, model: Any = None) -> Fitted:
    classes = np.array(names)[labels(numbers()) % len(names)]
    return _fit(LogisticRegression() if model is None else model, numbers(), classes)


def _several(model: Any, *columns: Any) -> Fitted:
    return _fit(model, number_frame(), np.column_stack(columns))


def _classes() -> Any:
    return labels(number_frame())


def _values() -> Any:
    return targets(number_frame())


def _meta(model: Any, target: Any = None) -> Fitted:
    return _fit(model, number_frame(), _classes() if target is None else target)


def _base() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression())


def _pair() -> Any:
    return [("linear", _base()), ("tree", DecisionTreeClassifier(max_depth=4, random_state=0))]


_TWO = lambda: _classes() > 0  # noqa: E731

_LABELS: dict[str, Callable[[], Fitted]] = {
    "labels: str": lambda: _named(["basic", "gold", "Größe"]),
    "labels: objects": lambda: _named(np.array(["basic", "gold", "team"], dtype=object)),
    "labels: int": lambda: _named([7, -3, 100]),
    "labels: int8": lambda: _named(np.array([1, 2, 3], dtype=np.int8)),
    "labels: uint64": lambda: _named(np.array([1, 2**60, 3], dtype=np.uint64), DecisionTreeClassifier()),
    "labels: float": lambda: _named([0.0, 1.0, 2.0]),
    "labels: bool": lambda: _named([True, False]),
    "labels: bytes": lambda: Fitted(BytesRule(), numbers(), {"trust_pickle": True}),
    "labels: two texts, SVC": lambda: _named(["no", "yes"], SVC(probability=False)),
    "labels: two texts, GaussianNB": lambda: _named(["no", "yes"], GaussianNB()),
    "labels: bool, forest": lambda: _named([True, False], RandomForestClassifier(5, random_state=0)),
    "labels: texts, MLP": lambda: _named(["a", "b", "c"], MLPClassifier((5,), max_iter=50, random_state=0)),
    "labels: texts, Gaussian process": lambda: _named(["a", "b", "c"], GaussianProcessClassifier()),
    "one class": lambda: _fit(DecisionTreeClassifier(), numbers(), np.array(["only"] * len(numbers()))),
    "many classes": lambda: _fit(ExtraTreesClassifier(5, random_state=0), number_frame(), number_frame()["age"]),
    "two outputs, linear": lambda: _several(LinearRegression(), _values(), _values() ** 2),
    "two outputs, tree": lambda: _several(DecisionTreeRegressor(random_state=0), _values(), _values() ** 2),
    "two outputs, forest": lambda: _several(RandomForestRegressor(5, random_state=0), _values(), _values() ** 2),
    "two outputs, neighbours": lambda: _several(KNeighborsRegressor(), _values(), _values() ** 2),
    "two classes of two kinds, forest": lambda: _several(
        RandomForestClassifier(5, random_state=0), _classes(), _classes() > 1
    ),
    "several labels, neighbours": lambda: _several(KNeighborsClassifier(), _classes(), _classes() > 1),
    "several labels of texts": lambda: _several(
        MultiOutputClassifier(DecisionTreeClassifier(random_state=0)),
        _classes().astype(str),
        np.where(_TWO(), "x", "y"),
    ),
    "several labels, MLP": lambda: _several(
        MLPClassifier((5,), max_iter=50, random_state=0), _TWO(), _classes() > 1
    ),
    "chain": lambda: _several(ClassifierChain(LogisticRegression(max_iter=1_000)), _TWO(), _classes() > 1),
    "sparse answers": lambda: _fit(OneHotEncoder(handle_unknown="ignore"), mixed_frame()[["plan", "code"]], None),
    "a single feature": lambda: _fit(Ridge(), numbers(1), targets(numbers(1))),
    "a single column of a frame": lambda: _fit(Ridge(), number_frame()[["age"]], _values()),
    "images": lambda: _fit(make_pipeline(StandardScaler(), SVC()), numbers(16), labels(numbers(16))),
}

_META: dict[str, Callable[[], Fitted]] = {
    "stacking, cross-validated": lambda: _meta(StackingClassifier(_pair(), cv=3)),
    "stacking, with the table": lambda: _meta(StackingClassifier(_pair(), cv=3, passthrough=True)),
    "stacking over columns": lambda: _fit(
        StackingClassifier(_pair(), cv=3), mixed_frame()[["age", "income"]], labels(mixed_frame())
    ),
    "voting, hard": lambda: _meta(VotingClassifier(_pair())),
    "voting, soft, weighted": lambda: _meta(VotingClassifier(_pair(), voting="soft", weights=[2, 1])),
    "bagging of SVC": lambda: _meta(BaggingClassifier(SVC(), 4, random_state=0)),
    "bagging with half the columns": lambda: _meta(
        BaggingClassifier(n_estimators=4, max_features=0.5, random_state=0)
    ),
    "AdaBoost": lambda: _meta(AdaBoostClassifier(n_estimators=5, random_state=0)),
    "calibrated, sigmoid": lambda: _meta(CalibratedClassifierCV(_base(), cv=3)),
    "calibrated, isotonic": lambda: _meta(CalibratedClassifierCV(_base(), method="isotonic", cv=3)),
    "calibrated, temperature": lambda: _meta(CalibratedClassifierCV(_base(), method="temperature", cv=3)),
    "calibrated forest": lambda: _meta(CalibratedClassifierCV(RandomForestClassifier(5, random_state=0), cv=3)),
    "tuned threshold": lambda: _meta(TunedThresholdClassifierCV(_base(), cv=3), _TWO()),
    "tuned threshold for texts": lambda: _meta(
        TunedThresholdClassifierCV(_base(), cv=3), np.where(_TWO(), "leaves", "stays")
    ),
    "grid search over a pipeline": lambda: _meta(
        GridSearchCV(_base(), {"logisticregression__C": [0.1, 1.0]}, cv=3)
    ),
    "halving search": lambda: _meta(HalvingGridSearchCV(_base(), {"logisticregression__C": [0.1, 1.0]}, cv=3)),
    "pipeline of pipelines": lambda: _meta(make_pipeline(make_pipeline(StandardScaler()), _base())),
    "skipped step": lambda: _meta(make_pipeline("passthrough", _base())),
}
