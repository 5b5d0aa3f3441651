"""Gradient boosters of LightGBM, XGBoost and CatBoost, in the file formats of these libraries.

A booster is stored as the library's own file, which holds no code, so that nobody needs to trust it. Loaded from
there, it has the methods and attributes of an estimator of scikit-learn, and predicts with one thread: the threads
of a library's pool do not survive a fork.

catboost   CatBoost's .cbm files
formats    which library wrote a file
lightgbm   LightGBM's text files
xgboost    XGBoost's files, JSON or UBJSON
"""

from __future__ import annotations

import contextlib
import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, get_args

import numpy as np
import pandas as pd

from headrace.errors import ModelError
from headrace.wire.outcome import ClassLabel
from headrace_worker.manifest import BoosterFormat

#: The rows that a file from outside must predict, and the largest number of their values.
_EXERCISE_ROWS, _EXERCISE_VALUES = 256, 10_000_000


class BoosterModel(ABC):
    """A booster that was loaded from its library's file.

    It may also have `classes_`, and `feature_names_in_` if it was fitted on named features, as estimators have.
    """

    #: The number of features it was fitted on.
    n_features_in_: int
    #: Whether an array of numbers gives the same predictions as a frame of them.
    takes_arrays: bool

    @abstractmethod
    def predict(self, data: Any) -> Any:
        """Return what the library's own estimator predicts, or its booster if no estimator was fitted."""

    def exercise(self) -> None:
        """Predict rows of random numbers: nodes of a forged file that point outside of it end the process.

        Libraries check little of a file when they load it. Call it in a process that may end.
        """
        features = max(1, self.n_features_in_)
        random = np.random.default_rng(0)
        rows = random.normal(size=(min(_EXERCISE_ROWS, 1 + _EXERCISE_VALUES // features), features))
        rows *= 10.0 ** random.integers(-2, 7, size=(1, features))
        rows[::5] = np.nan
        with contextlib.suppress(Exception):  # a file may be refused for its columns of texts
            self.predict(self.with_texts(rows))

    def with_texts(self, rows: Any) -> Any:
        """Return rows of numbers with texts in the columns that take no numbers."""
        return rows

    def use_names(self, columns: Sequence[str]) -> None:  # noqa: B027  # most libraries keep names as they are
        """Use the names of a table's columns, where the library's file has them in another spelling."""


class Exported(NamedTuple):
    """A booster in its library's file format, and the labels of its classes if the file does not have them."""

    format: BoosterFormat
    data: bytes
    classes: tuple[ClassLabel, ...] = ()
    #: The model with methods that take tables, if its own do not; else None.
    table_model: Any = None


def export(model: Any) -> Exported | None:
    """Convert a fitted model of one of the libraries to its file format; None for a model of something else.

    A subclass may predict otherwise, so it is something else too. Raises ModelError for a model that is not
    fitted.
    """
    form = type(model).__module__.partition(".")[0]
    if form not in get_args(BoosterFormat):
        return None
    try:
        exported: Exported | None = importlib.import_module(f"{__name__}.{form}").export(model)
    except Exception as error:
        raise ModelError(
            f"a {type(model).__name__} cannot be stored: {' '.join(str(error).split())[:300]}"
        ) from error
    return exported


def load(data: bytes, form: BoosterFormat, title: str, classes: Sequence[ClassLabel] = ()) -> BoosterModel:
    """Load a booster from its library's file. Raises ModelError if the library is missing or refuses the file."""
    try:
        library = importlib.import_module(f"{__name__}.{form}")
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{title} needs {error.name}, which is not installed here; pip install 'headrace-worker[{form}]'"
        ) from None
    try:
        booster: BoosterModel = library.load(data, classes)
    except Exception as error:
        raise ModelError(f"{form} cannot load {title}: {' '.join(str(error).split())[:200]}") from error
    return booster


def to_labels(classes: Any) -> tuple[ClassLabel, ...]:
    """Convert the labels of classes to values that JSON has. Raises ModelError for other labels."""
    labels = tuple(np.asarray(classes).tolist())
    if not all(isinstance(label, str | int | float | bool) for label in labels):
        raise ModelError(f"the labels of classes must be texts, numbers or booleans; got {labels[0]!r}")
    return labels


def encode_categories(data: Any, categories: Mapping[int, Sequence[Any]]) -> Any:
    """Return a frame whose columns of categories have the type they were fitted with; other data as it is.

    Most libraries take columns of texts in no other way. `categories` is by a column's position. A value that is
    none of them becomes a missing value.
    """
    if not isinstance(data, pd.DataFrame) or not categories:
        return data
    columns: dict[Any, Any] = {
        data.columns[position]: data.iloc[:, position].astype(pd.CategoricalDtype(list(values)))
        for position, values in categories.items()
        if not isinstance(data.dtypes.iloc[position], pd.CategoricalDtype)
    }
    return data.assign(**columns) if columns else data
