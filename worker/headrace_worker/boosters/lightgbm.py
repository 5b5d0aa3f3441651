"""Boosters of LightGBM, stored as the text that `Booster.save_model` writes.

The text has the categories of a frame's columns, but neither the columns they belong to nor the labels of the
classes. A column is found by the form of its range; labels are given by the manifest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import lightgbm
import numpy as np
from threadpoolctl import threadpool_limits

from headrace.wire.outcome import ClassLabel
from headrace_worker.boosters import BoosterModel, Exported, encode_categories, to_labels

#: LightGBM names the features of an array so.
_UNNAMED = re.compile(r"Column_\d+")


class LightgbmModel(BoosterModel):
    """A LightGBM booster, with the labels of its classes if it was fitted as a classifier."""

    takes_arrays = True

    def __init__(self, booster: lightgbm.Booster, classes: Sequence[ClassLabel]) -> None:
        self._booster = booster
        self.n_features_in_ = booster.num_feature()
        names = booster.feature_name()
        if not all(map(_UNNAMED.fullmatch, names)):
            self.feature_names_in_ = np.array(names, dtype=object)
        self._categories = _find_categories(booster)
        if classes:
            self.classes_ = np.array(classes)

    def predict(self, data: Any) -> Any:
        """Return the labels of a classifier, or what the booster itself returns."""
        if not hasattr(self, "classes_"):
            return self._run(data)
        return self.classes_[np.argmax(self._probabilities(data), axis=1)]

    @property
    def predict_proba(self) -> Callable[[Any], Any]:
        """The function that returns a row's probabilities. Only a classifier has it."""
        if not hasattr(self, "classes_"):
            raise AttributeError("predict_proba")
        return self._probabilities

    def use_names(self, columns: Sequence[str]) -> None:
        """Use the names of a table's columns. LightGBM writes an underscore for a space."""
        names = getattr(self, "feature_names_in_", None)
        if names is not None and [re.sub(r"\s", "_", name) for name in columns] == list(names):
            self.feature_names_in_ = np.array(columns, dtype=object)

    def _probabilities(self, data: Any) -> Any:
        output = self._run(data)
        return output if output.ndim == 2 else np.column_stack([1.0 - output, output])

    def _run(self, data: Any) -> Any:
        return self._booster.predict(encode_categories(data, self._categories), num_threads=1)


def export(model: Any) -> Exported | None:
    """Return the text of a Booster or of an estimator that is fitted; None for another object of LightGBM."""
    if isinstance(model, lightgbm.Booster):
        return Exported("lightgbm", _to_text(model))
    if not isinstance(model, lightgbm.LGBMModel):
        return None
    is_classifier = isinstance(model, lightgbm.LGBMClassifier)
    # With an objective of one's own, a classifier returns scores.
    classes = () if not is_classifier or callable(model.objective_) else to_labels(model.classes_)
    return Exported("lightgbm", _to_text(model.booster_), classes)


def load(data: bytes, classes: Sequence[ClassLabel]) -> LightgbmModel:
    """Load a booster from its text."""
    # A text is read by as many threads as OpenMP has.
    with threadpool_limits(1, "openmp"):
        return LightgbmModel(lightgbm.Booster(model_str=data.decode()), classes)


def _to_text(booster: lightgbm.Booster) -> bytes:
    return booster.model_to_string().encode()


def _find_categories(booster: lightgbm.Booster) -> dict[int, list[Any]]:
    """Return the categories of a frame's columns, by the column's position."""
    encoded: list[list[Any]] = booster.pandas_categorical or []
    # The range of a number is "[least:largest]", that of categories "0:1:2", and of a constant "none".
    header = booster.model_to_string(num_iteration=1).partition("\nfeature_infos=")[2]
    ranges = header.partition("\n")[0].split(" ")
    positions = [position for position, text in enumerate(ranges) if text[:1] not in {"[", "n"}]
    # An ordered category is a number to LightGBM: then it cannot be said which columns these are.
    return dict(zip(positions, encoded, strict=True)) if len(positions) == len(encoded) else {}
