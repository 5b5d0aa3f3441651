"""Gradient boosters, as estimators, within pipelines and meta-estimators, and as the library's own objects."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import catboost
import lightgbm
import numpy as np
import xgboost
from sklearn.compose import make_column_transformer
from sklearn.ensemble import StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from tests.zoo.case import Case, Fitted, gappy_frame, labels, mixed_frame, number_frame, numbers, targets

_FEW: dict[str, Any] = {"n_estimators": 10, "min_child_samples": 5, "verbose": -1}


def cases() -> Iterator[Case]:
    """Yield the cases."""
    for name, fit in _FITS.items():
        yield Case(group="boosters", name=name, fit=fit)


def _fit(model: Any, table: Any, target: Any, **options: Any) -> Fitted:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(table, target)
    return Fitted(model, table, options)


def _classifier(**arguments: Any) -> Any:
    return lightgbm.LGBMClassifier(**_FEW, **arguments)


def _regressor(**arguments: Any) -> Any:
    return lightgbm.LGBMRegressor(**_FEW, **arguments)


def _xgb_classifier(**arguments: Any) -> Any:
    return xgboost.XGBClassifier(n_estimators=10, **arguments)


def _cat_classifier(**arguments: Any) -> Any:
    return catboost.CatBoostClassifier(iterations=10, verbose=False, allow_writing_files=False, **arguments)


def _numbers() -> Any:
    return targets(number_frame())


def _names() -> Any:
    return np.array(["a", "b", "c"])[labels(number_frame())]


def _booster(table: Any, **parameters: Any) -> Fitted:
    data = lightgbm.Dataset(table, targets(table))
    return Fitted(lightgbm.train({"verbose": -1, "min_data_in_leaf": 5, **parameters}, data, 10), table)


def _categories() -> Any:
    return mixed_frame().astype({"plan": "category"}).drop(columns=["size", "code"])


_FITS: dict[str, Callable[[], Fitted]] = {
    "LGBMClassifier": lambda: _fit(_classifier(), number_frame(), _names()),
    "LGBMClassifier of an array": lambda: _fit(_classifier(), numbers(), labels(numbers()) > 0),
    "LGBMClassifier, categories": lambda: _fit(_classifier(), _categories(), _names()),
    "LGBMClassifier, gaps": lambda: _fit(
        _classifier(), gappy_frame().drop(columns=["plan", "size", "code"]), _names()
    ),
    "LGBMRegressor": lambda: _fit(_regressor(), number_frame(), targets(number_frame())),
    "LGBMRegressor, categories": lambda: _fit(_regressor(), _categories(), targets(number_frame())),
    "LGBMRegressor, dart": lambda: _fit(_regressor(boosting_type="dart"), number_frame(), targets(number_frame())),
    "LGBMRegressor, Poisson": lambda: _fit(
        _regressor(objective="poisson"), number_frame(), np.abs(targets(number_frame()))
    ),
    "Booster": lambda: _booster(number_frame()),
    "Booster of categories": lambda: _booster(_categories()),
    "LGBMClassifier at the end of a pipeline": lambda: _fit(
        make_pipeline(
            make_column_transformer((OneHotEncoder(), ["plan"]), remainder="passthrough"), _classifier()
        ),
        mixed_frame()[["plan", "age", "income"]],
        _names(),
        trust_pickle=True,
    ),
    "LGBMClassifier in a stack": lambda: _fit(
        StackingClassifier([("booster", _classifier()), ("linear", LogisticRegression(max_iter=2_000))], cv=2),
        number_frame(),
        _names(),
        trust_pickle=True,
    ),
    "LGBMRegressor of two outputs": lambda: _fit(
        MultiOutputRegressor(_regressor()),
        number_frame(),
        np.column_stack([targets(number_frame()), number_frame()["age"]]),
        trust_pickle=True,
    ),
    "XGBClassifier": lambda: _fit(_xgb_classifier(), number_frame(), labels(number_frame())),
    "XGBClassifier of two classes": lambda: _fit(_xgb_classifier(), numbers(), labels(numbers()) > 0),
    "XGBClassifier, categories": lambda: _fit(
        _xgb_classifier(enable_categorical=True), _categories(), labels(number_frame())
    ),
    "XGBRegressor, gaps": lambda: _fit(
        xgboost.XGBRegressor(n_estimators=10), gappy_frame().drop(columns=["plan", "size", "code"]), _numbers()
    ),
    "XGBRegressor of two outputs": lambda: _fit(
        xgboost.XGBRegressor(n_estimators=10), number_frame(), np.column_stack([_numbers(), _numbers() ** 2])
    ),
    "XGBClassifier at the end of a pipeline": lambda: _fit(
        make_pipeline(StandardScaler(), _xgb_classifier()),
        number_frame(),
        labels(number_frame()),
        trust_pickle=True,
    ),
    "CatBoostClassifier": lambda: _fit(_cat_classifier(), number_frame(), _names()),
    "CatBoostClassifier, categories": lambda: _fit(
        _cat_classifier(cat_features=["plan", "code"]), mixed_frame().drop(columns="size"), _names()
    ),
    "CatBoostRegressor": lambda: _fit(
        catboost.CatBoostRegressor(iterations=10, verbose=False, allow_writing_files=False),
        number_frame(),
        _numbers(),
    ),
    "LGBMClassifier of a search": lambda: _fit(
        GridSearchCV(_classifier(), {"num_leaves": [3, 7]}, cv=2), number_frame(), _names()
    ),
}
