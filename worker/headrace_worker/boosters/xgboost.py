"""Boosters of XGBoost, stored as the UBJSON that `save_model` writes; files in JSON are stored as they are.

A file that an estimator wrote says so, and becomes an estimator again: with the best iteration of early stopping,
and with classes, which are the integers from 0 in XGBoost.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import xgboost
from threadpoolctl import threadpool_limits

from headrace.errors import InvalidInput, ModelError
from headrace.wire.outcome import ClassLabel
from headrace_worker.boosters import BoosterModel, Exported, encode_categories

_ESTIMATORS = {
    "classifier": xgboost.XGBClassifier,
    "regressor": xgboost.XGBRegressor,
    "ranker": xgboost.XGBRanker,
}
#: Other threads do not survive a fork, and a worker may have no GPU.
_PARAMETERS = {"nthread": 1, "device": "cpu"}


class XgboostModel(BoosterModel):
    """A booster of XGBoost, within an estimator if one wrote its file."""

    def __init__(self, booster: xgboost.Booster, estimator: Any) -> None:
        self._booster, self._estimator = booster, estimator
        self.n_features_in_ = booster.num_features()
        if booster.feature_names is not None:
            self.feature_names_in_ = np.array(booster.feature_names, dtype=object)
        self._is_linear = _read_config(booster).gradient_booster.name == "gblinear"
        self.takes_arrays = not self._is_linear  # a linear estimator compares names
        self._categories = _find_categories(booster)
        if self._categories:
            self.categories_ = [self._categories.get(number, []) for number in range(self.n_features_in_)]
        if isinstance(estimator, xgboost.XGBClassifier):
            self.classes_ = estimator.classes_

    def predict(self, data: Any) -> Any:
        """Return what the method of the estimator returns, or that of the booster."""
        encoded = self._encode(data)
        if self._estimator is not None:
            return self._estimator.predict(encoded)
        if self._is_linear:
            return self._booster.predict(to_matrix(self._booster, encoded))
        return self._booster.inplace_predict(encoded)  # equal, and quicker for few rows

    @property
    def predict_proba(self) -> Callable[[Any], Any]:
        """The function that returns a row's probabilities. Only a classifier has it."""
        if not hasattr(self, "classes_"):
            raise AttributeError("predict_proba")
        return lambda data: self._estimator.predict_proba(self._encode(data))

    def _encode(self, data: Any) -> Any:
        """Return the data with texts as categories. Raises InvalidInput for a value that is no category."""
        encoded = encode_categories(data, self._categories)
        if encoded is not data:
            for position in self._categories:
                if (encoded.iloc[:, position].isna() & data.iloc[:, position].notna()).any():
                    raise InvalidInput(
                        f"{data.columns[position]!r} holds a value that the model was not fitted on"
                    )
        return encoded


class Booster:
    """A Booster of XGBoost that takes tables, which packaging compares a version with."""

    def __init__(self, booster: xgboost.Booster) -> None:
        self._booster = booster

    def predict(self, data: Any) -> Any:
        """Return what the booster returns for a table."""
        return self._booster.predict(to_matrix(self._booster, data))


def to_matrix(booster: xgboost.Booster, data: Any) -> xgboost.DMatrix:
    """Convert a table to what a Booster takes. An array's columns have the names and types it was fitted on."""
    if hasattr(data, "columns"):
        return xgboost.DMatrix(data, enable_categorical=True, nthread=1)
    return xgboost.DMatrix(
        data, feature_names=booster.feature_names, feature_types=booster.feature_types, nthread=1
    )


def export(model: Any) -> Exported | None:
    """Return the UBJSON of a Booster or of an estimator that is fitted; None for another object of XGBoost.

    Raises ModelError for what XGBoost's files do not hold.
    """
    if isinstance(model, xgboost.Booster):
        return Exported("xgboost", bytes(model.save_raw("ubj")), table_model=Booster(model))
    if not isinstance(model, xgboost.XGBModel):
        return None
    booster = model.get_booster()
    if not np.isnan(model.missing):
        raise ModelError(
            f"it takes {model.missing:g} as a missing value, which XGBoost's files do not say; put NaN (null in a "
            "job) in its place, and fit it again without `missing`"
        )
    if callable(model.objective):
        raise ModelError(
            "it was fitted with an objective of your own, which XGBoost's files do not hold; give its Booster, "
            "which returns scores: model.get_booster()"
        )
    if isinstance(model, xgboost.XGBClassifier) and _read_config(booster).learner_model_param.num_target != "1":
        raise ModelError(
            "it predicts several labels at once; give its Booster, which returns a probability for each label: "
            "model.get_booster()"
        )
    with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
        file = Path(folder) / "model.ubj"
        model.save_model(file)
        return Exported("xgboost", file.read_bytes())


def load(data: bytes, classes: Sequence[ClassLabel]) -> XgboostModel:  # noqa: ARG001  # the file has them
    """Load a booster from its JSON or UBJSON, to be run by one thread of the processor."""
    # A file is read by as many threads as OpenMP has.
    with threadpool_limits(1, "openmp"):
        booster = xgboost.Booster(_PARAMETERS, model_file=bytearray(data))
        estimator = None
        if make := _ESTIMATORS.get(_estimator_kind(booster)):
            estimator = make(n_jobs=1)
            estimator.load_model(bytearray(data))
            booster = estimator.get_booster()
            booster.set_param(_PARAMETERS)
        return XgboostModel(booster, estimator)


class _Meta(msgspec.Struct, frozen=True):
    """The attributes of an estimator in its file."""

    kind: str = msgspec.field(name="_estimator_type", default="")


def _estimator_kind(booster: xgboost.Booster) -> str:
    meta = booster.attr("scikit_learn")
    return "" if meta is None else msgspec.json.decode(meta, type=_Meta).kind


class _GradientBooster(msgspec.Struct, frozen=True):
    name: str


class _Parameters(msgspec.Struct, frozen=True):
    num_target: str = "1"


class _Learner(msgspec.Struct, frozen=True):
    gradient_booster: _GradientBooster
    learner_model_param: _Parameters


class _Config(msgspec.Struct, frozen=True):
    learner: _Learner


def _read_config(booster: xgboost.Booster) -> _Learner:
    return msgspec.json.decode(booster.save_config(), type=_Config).learner


class _Categories(msgspec.Struct, frozen=True):
    """The categories of a column: numbers, or the bytes of all texts with the offsets of each."""

    values: list[float]
    offsets: list[int] | None = None

    def decode(self) -> list[Any] | None:
        """Return the categories. Return None for texts with other letters than ASCII, which XGBoost cuts off."""
        if self.offsets is None:
            return [int(value) for value in self.values]
        codes = [int(value) for value in self.values]
        if any(code < 0 for code in codes):
            return None
        text = bytes(codes).decode()
        return [text[start:end] for start, end in pairwise(self.offsets)]


class _Encoding(msgspec.Struct, frozen=True):
    enc: list[_Categories] = []


class _Trees(msgspec.Struct, frozen=True):
    cats: _Encoding = _Encoding()


class _TreeBooster(msgspec.Struct, frozen=True):
    model: _Trees = _Trees()
    gbtree: _TreeBooster | None = None


class _TreeLearner(msgspec.Struct, frozen=True):
    gradient_booster: _TreeBooster


class _File(msgspec.Struct, frozen=True):
    learner: _TreeLearner


def _find_categories(booster: xgboost.Booster) -> dict[int, list[Any]]:
    """Return the categories of a frame's columns, by the column's position. XGBoost stores them since 3.1."""
    if "c" not in (booster.feature_types or ()):
        return {}
    file = msgspec.json.decode(bytes(booster.save_raw("json")), type=_File)
    trees = file.learner.gradient_booster
    columns = (trees.gbtree or trees).model.cats.enc
    decoded = {position: column.decode() for position, column in enumerate(columns) if column.values}
    return {position: categories for position, categories in decoded.items() if categories}
