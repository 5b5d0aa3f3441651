"""Gradient boosters of LightGBM, XGBoost and CatBoost, in the file formats of these libraries.

A booster is stored as the library's own file, which holds no code, so that nobody needs to trust it. Loaded from
there, it has the methods and attributes of an estimator of scikit-learn, and predicts with one thread: the threads
of a library's pool do not survive a fork.

lightgbm   LightGBM's text files
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, TypeGuard, get_args

import numpy as np

from headrace.errors import ModelError
from headrace_worker.manifest import BoosterFormat, ClassLabel, Format

#: The first bytes of each library's files.
_PREFIXES: dict[BoosterFormat, tuple[bytes, ...]] = {"lightgbm": (b"tree\n",)}


class BoosterModel(ABC):
    """A booster that was loaded from its library's file.

    It may also have `classes_`, and `feature_names_in_` if it was fitted on named features, as estimators have.
    """

    #: The number of features it was fitted on.
    n_features_in_: int
    #: Whether an array of numbers gives the same predictions as a frame of them.
    takes_arrays: ClassVar[bool]

    @abstractmethod
    def predict(self, data: Any) -> Any:
        """Return what the library's own estimator predicts, or its booster if no estimator was fitted."""

    def use_names(self, columns: Sequence[str]) -> None:  # noqa: B027  # most libraries keep names as they are
        """Use the names of a table's columns, where the library's file has them in another spelling."""


class Exported(NamedTuple):
    """A booster in its library's file format, and the labels of its classes if the file does not have them."""

    format: BoosterFormat
    data: bytes
    classes: tuple[ClassLabel, ...] = ()


def is_booster_format(form: Format) -> TypeGuard[BoosterFormat]:
    """Decide whether artifacts of this format are files of a library of boosters."""
    return form in get_args(BoosterFormat)


def detect_format(data: bytes) -> BoosterFormat | None:
    """Detect the library that wrote a file, by its first bytes; None for a file of something else."""
    return next((form for form, prefixes in _PREFIXES.items() if data.startswith(prefixes)), None)


def export(model: Any) -> Exported | None:
    """Convert a fitted model of one of the libraries to its file format; None for a model of something else.

    A subclass may predict otherwise, so it is something else too. Raises ModelError for a model that is not
    fitted.
    """
    form = type(model).__module__.partition(".")[0]
    if form not in _PREFIXES:
        return None
    try:
        exported: Exported | None = importlib.import_module(f"{__name__}.{form}").export(model)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"a {type(model).__name__} cannot be stored: {' '.join(str(error).split())[:200]}"
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
