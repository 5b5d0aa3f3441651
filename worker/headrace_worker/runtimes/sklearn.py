"""scikit-learn: a batch of instances becomes a frame, an array or a list of texts; predictions become lists.

Frames and arrays are built by column, with the types pandas gives columns it reads from a file: numbers are
float64 with NaN where missing, texts are objects with NaN where missing. That is what estimators were fitted on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction import DictVectorizer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from headrace.contract import Array, Feature, Named, Text
from headrace.envelope import Instance
from headrace.errors import InvalidInput, ModelError
from headrace_worker.runtimes.parts import parts

_Column = npt.NDArray[Any]
#: Makes of a batch of instances what the estimator takes.
_Stack = Callable[[Sequence[Any]], Any]


class SklearnRuntime:
    """Runs the methods of a fitted estimator.

    With `own`, the estimator is the runtime's to change: where an array serves as well as a frame, the names
    of its features are taken from it, which spares scikit-learn's look at them in each call (measured with 30
    features: 0.2 ms for a row instead of 0.9).
    """

    def __init__(self, estimator: Any, given: Named | Array | Text, *, own: bool = False) -> None:
        self._estimator = estimator
        if own and isinstance(given, Named) and _array_serves(estimator, given):
            _forget_names(estimator)
        match given:
            case Named():
                self._stack = _stack_named(estimator, given)
            case Array():
                dtype = _dtype(given.kind, nullable=given.nullable)
                missing = _missing(estimator)
                self._stack = lambda instances: _array(instances, dtype, missing)
            case Text():
                self._stack = list

    def predict(self, method: str, instances: Sequence[Instance]) -> list[Any]:
        """One prediction for each instance. Raises what the estimator raises, and ModelError for a bad shape."""
        stacked = self._stack(instances)
        # Overflow is the answer to extreme input; it comes out as null, not as a warning for each batch.
        with np.errstate(all="ignore"):
            output = getattr(self._estimator, method)(stacked)
        return plain(output, len(instances))


def plain(output: Any, rows: int) -> list[Any]:
    """What an estimator returned as a list of one JSON-able prediction for each row; NaN and infinity are null.

    An array of shape (rows, ...) becomes nested lists; a list of arrays, one for each output of a multi-output
    classifier, is turned around; sparse matrices and frames are made dense.
    """
    if isinstance(output, list | tuple) and output and all(_is_block(block, rows) for block in output):
        return [list(row) for row in zip(*(plain(block, rows) for block in output), strict=True)]
    if sparse.issparse(output):
        output = output.toarray()
    elif hasattr(output, "to_numpy"):
        output = output.to_numpy()
    array = np.asarray(output)
    if array.ndim == 0 or len(array) != rows:
        got = f"{len(array)} predictions" if array.ndim else "a single value"
        raise ModelError(f"the model gave {got} for {rows} instances; it must give one for each")
    listed: list[Any] = array.tolist()
    clean = array.dtype.kind in "iubU" or (array.dtype.kind == "f" and bool(np.isfinite(array).all()))
    return listed if clean else [_plain_value(value) for value in listed]


def _is_block(block: Any, rows: int) -> bool:
    return isinstance(block, np.ndarray) and block.ndim == 2 and len(block) == rows


def _plain_value(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain_value(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, np.ndarray):
        return [_plain_value(item) for item in value.tolist()]
    return None if value is pd.NA or value is pd.NaT else str(value)


def _stack_named(estimator: Any, given: Named) -> _Stack:
    names = [feature.name for feature in given.features]
    first = _first_step(estimator)
    if isinstance(first, DictVectorizer):
        return lambda rows: [{name: row[name] for name in names if row[name] is not None} for row in rows]
    missing = _missing(estimator)
    dtypes = [_dtype_of(feature) for feature in given.features]
    pick = _picker(names)
    numbers = all(dtype is np.float64 for dtype in dtypes)
    # What tells neither names nor a number of features may need either; a frame has both.
    if hasattr(estimator, "n_features_in_") and not hasattr(estimator, "feature_names_in_"):
        common = np.float64 if all(dtype is not np.object_ for dtype in dtypes) else np.object_
        return lambda rows: _array(list(map(pick, rows)), common, missing)
    index = pd.Index(names, dtype=object)
    if numbers:
        return lambda rows: pd.DataFrame(_array(list(map(pick, rows)), np.float64, missing), columns=index)

    def frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
        columns = zip(*map(pick, rows), strict=True)
        arrays = [_array(column, dtype, missing) for column, dtype in zip(columns, dtypes, strict=True)]
        # A Series keeps objects as objects; a bare array of texts becomes pandas' own type, whose missing
        # value is not the one an estimator may have been fitted with.
        columned = {
            place: pd.Series(array, dtype=object) if array.dtype == object else array
            for place, array in enumerate(arrays)
        }
        made = pd.DataFrame(columned, copy=False)
        made.columns = index
        return made

    return frame


def _picker(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    if len(names) == 1:
        only = names[0]
        return lambda row: (row[only],)
    return itemgetter(*names)


def _array(values: Sequence[Any], dtype: Any, missing: float | None) -> _Column:
    """An array of values; None in numbers is NaN."""
    if dtype is np.object_:
        whole = np.array(values, dtype=object)
        if missing is not None:
            whole[np.equal(whole, None)] = missing  # type: ignore[call-overload]  # None is an object too
        return whole
    try:
        return np.array(values, dtype=dtype)
    except OverflowError:
        # JSON's integers have no bound, those of arrays have.
        try:
            return np.array(values, dtype=np.float64)
        except OverflowError:
            raise InvalidInput("a number is too large for a 64-bit float") from None


def _dtype_of(feature: Feature) -> Any:
    if feature.kind == "category" and feature.categories:
        kinds = {type(category) for category in feature.categories}
        if kinds == {bool}:
            return _dtype("boolean", nullable=feature.nullable)
        if kinds <= {int, float}:
            return _dtype("integer" if kinds == {int} else "number", nullable=feature.nullable)
    return _dtype(feature.kind, nullable=feature.nullable)


def _dtype(kind: str, *, nullable: bool) -> Any:
    match kind:
        case "number":
            return np.float64
        case "integer":
            return np.float64 if nullable else np.int64
        case "boolean":
            return np.object_ if nullable else np.bool_
        case _:
            return np.object_


def _missing(estimator: Any) -> float | None:
    """How a missing value among objects is written: NaN, unless the estimator was fitted on None."""
    for part in parts(estimator):
        if getattr(part, "missing_values", math.nan) is None:
            return None
        known = getattr(part, "categories_", None)
        if isinstance(known, list) and any(value is None for listed in known for value in listed):
            return None
    return math.nan


def _first_step(estimator: Any) -> Any:
    while isinstance(estimator, Pipeline):
        estimator = estimator.steps[0][1]
    return estimator


def _array_serves(estimator: Any, given: Named) -> bool:
    """Whether predictions from an array are those from a frame, for certain.

    They are where all features are numbers and every part is scikit-learn's own and takes columns by place:
    such a part makes an array of a frame before it does anything else.
    """
    if not all(_dtype_of(feature) is np.float64 for feature in given.features):
        return False
    if not hasattr(estimator, "n_features_in_") or estimator.n_features_in_ != len(given.features):
        return False
    return all(
        type(part).__module__.startswith("sklearn.")
        and not isinstance(part, ColumnTransformer | FunctionTransformer | DictVectorizer)
        and not vars(part).get("_sklearn_output_config")
        for part in parts(estimator)
    )


def _forget_names(estimator: Any) -> None:
    for part in parts(estimator):
        vars(part).pop("feature_names_in_", None)
