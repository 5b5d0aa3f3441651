"""Boosters of CatBoost, stored as the `.cbm` files that `save_model` writes.

The file has the loss, the labels of the classes, and the columns of categories and of texts, so it becomes
the same kind of estimator again. CatBoost takes categories as texts or integers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import catboost
import numpy as np
import pandas as pd

from headrace.errors import ModelError
from headrace.wire.outcome import ClassLabel
from headrace_worker.boosters import BoosterModel, Exported

#: How a fitted regressor transforms the scores of these losses. A loaded one does not.
_TRANSFORMATIONS = {
    "Poisson": "Exponent",
    "Tweedie": "Exponent",
    "RMSEWithUncertainty": "RMSEWithUncertainty",
}


class CatboostModel(BoosterModel):
    """An estimator of CatBoost that predicts with one thread, and gives a label for each row, not a list of it."""

    def __init__(self, estimator: Any) -> None:
        self._estimator = estimator
        names = list(estimator.feature_names_)
        self.n_features_in_ = len(names)
        if names != [str(number) for number in range(len(names))]:  # CatBoost names the features of an array so
            self.feature_names_in_ = np.array(names, dtype=object)
        # A column of integers may hold categories, which are not numbers with a fraction.
        self.takes_arrays = not _other_features(estimator)
        loss = str(estimator.get_all_params().get("loss_function", "")).partition(":")[0]
        self._options = {"prediction_type": _TRANSFORMATIONS[loss]} if loss in _TRANSFORMATIONS else {}
        if isinstance(estimator, catboost.CatBoostClassifier):
            self.classes_ = np.asarray(estimator.classes_)

    def predict(self, data: Any) -> Any:
        """Return what the method of the estimator returns, with one label for each row."""
        return flatten(self._estimator.predict(data, thread_count=1, **self._options))

    @property
    def predict_proba(self) -> Callable[[Any], Any]:
        """The function that returns a row's probabilities. Only a classifier has it."""
        if not hasattr(self, "classes_"):
            raise AttributeError("predict_proba")
        return lambda data: self._estimator.predict_proba(data, thread_count=1)

    def with_texts(self, rows: Any) -> Any:
        """Return a frame of the rows with texts in the columns of categories and texts."""
        frame = pd.DataFrame(rows, columns=list(self._estimator.feature_names_))
        for name in frame.columns[_other_features(self._estimator)]:
            frame[name] = frame[name].astype(str)
        return frame


class FlatModel:
    """A fitted model of CatBoost, with one label for each row: packaging compares a version with it."""

    def __init__(self, model: catboost.CatBoost) -> None:
        self._model = model

    def predict(self, data: Any) -> Any:
        """Return the model's own predictions."""
        return flatten(self._model.predict(data))

    def predict_proba(self, data: Any) -> Any:
        """Return a classifier's own probabilities."""
        return self._model.predict_proba(data)


def flatten(output: Any) -> Any:
    """Return a vector for a matrix of one column, which CatBoost returns for labels of three or more classes."""
    array = np.asarray(output)
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def export(model: Any) -> Exported | None:
    """Return the file of a model that is fitted; None for another object of CatBoost."""
    if not isinstance(model, catboost.CatBoost):
        return None
    if not model.is_fitted():
        raise ModelError("it is not fitted; call its `fit` first")
    with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
        file = Path(folder) / "model.cbm"
        model.save_model(str(file), format="cbm")
        data = file.read_bytes()
    if type(model) is catboost.CatBoost:  # it predicts scores; its file does not say so
        model = catboost.to_classifier(model) if len(model.classes_) else catboost.to_regressor(model)
    return Exported("catboost", data, table_model=FlatModel(model))


def load(data: bytes, classes: Sequence[ClassLabel]) -> CatboostModel:  # noqa: ARG001  # the file has them
    """Load a model from its file, as the kind of estimator that its loss and classes make it."""
    is_classifier = len(catboost.CatBoost().load_model(blob=data).classes_) > 0
    estimator = catboost.CatBoostClassifier() if is_classifier else catboost.CatBoostRegressor()
    return CatboostModel(estimator.load_model(blob=data))


def _other_features(estimator: Any) -> list[int]:
    """Return the indexes of the features that are categories, texts or embeddings."""
    return [
        *estimator.get_cat_feature_indices(),
        *estimator.get_text_feature_indices(),
        *estimator.get_embedding_feature_indices(),
    ]
