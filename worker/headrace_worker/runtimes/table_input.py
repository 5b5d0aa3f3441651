"""Convert the columns of a table to what estimators take: the columnar twin of `input_arrays`.

A table is a RecordBatch that `headrace_worker.tables.check` accepted: a column for each feature in the contract's
order, or, for instances that are lists, a column for each value or one column of lists of a fixed size. Arrays are
built column by column, so a matrix has the order of Fortran, as that of a frame has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from headrace.catalog.contract import Array, Named, Text, Tokens
from headrace_worker.runtimes import InputSchema
from headrace_worker.runtimes.arrow_columns import find_nulls, make_arrow_builder, to_numbers, view_numbers
from headrace_worker.runtimes.columns import numpy_dtype
from headrace_worker.runtimes.input_arrays import EstimatorInput, common_dtype, is_numeric

#: Converts a RecordBatch to an estimator's input.
TableStacker = Callable[[Any], Any]


def make_table_stacker(facts: EstimatorInput, input_schema: InputSchema) -> TableStacker | None:
    """Return a function that converts a table to the estimator's input, equal to that of its instances.

    Return None if the estimator takes the rows as instances only.
    """
    match input_schema:
        case Named():
            return _make_named_stacker(facts, input_schema)
        case Array():
            dtype = numpy_dtype(input_schema)
            if dtype is None or not _holds_exactly(input_schema.kind, dtype):
                return None
            return lambda batch: _to_array(batch, input_schema.shape, dtype)
        case Text() | Tokens():
            return lambda batch: batch.column(0).to_pylist()


def make_number_table_stacker(input_schema: InputSchema) -> TableStacker | None:
    """Return a function that converts a table to a float64 array with NaN for missing values.

    Return None if not all values are numbers.
    """
    match input_schema:
        case Named(features=features) if all(map(is_numeric, features)):
            return lambda batch: _to_matrix(batch.columns, np.float64)
        case Array(kind=kind) if kind in {"number", "integer", "boolean"}:
            return lambda batch: _to_array(batch, input_schema.shape, np.float64)
        case _:
            return None


def _make_named_stacker(facts: EstimatorInput, input_schema: Named) -> TableStacker | None:
    features = input_schema.features
    if facts.is_objects or any(feature.optional for feature in features):
        return None
    common = common_dtype(input_schema)
    has_datetimes = any(feature.kind in {"datetime", "date"} for feature in features)
    is_uniform = all(numpy_dtype(feature) is common for feature in features) and common is not np.object_
    index = pd.Index([feature.name for feature in features], dtype=object)
    takes_array = facts.is_array and not has_datetimes
    if takes_array or is_uniform:
        if not all(_holds_exactly(feature.kind, common) for feature in features):
            return None
        if takes_array:
            return lambda batch: _to_matrix(batch.columns, common)
        return lambda batch: pd.DataFrame(_to_matrix(batch.columns, common), columns=index, copy=False)
    builders = [make_arrow_builder(feature, facts.missing) for feature in features]

    def build_frame(batch: Any) -> pd.DataFrame:
        arrays = {
            number: build(column)
            for number, (build, column) in enumerate(zip(builders, batch.columns, strict=True))
            if build is not None
        }
        frame = pd.DataFrame(arrays, copy=False)
        frame.columns = index
        return frame

    return None if None in builders else build_frame


def _holds_exactly(kind: str, dtype: Any) -> bool:
    """Decide whether an array of this type is the same for numbers as the table and as instances hold them.

    A number may be an integer or a float in an instance. A table has floats, which only floats hold alike.
    """
    return dtype is not np.object_ and (kind != "number" or np.dtype(dtype).kind == "f")


def _to_array(batch: Any, shape: Sequence[int], dtype: Any) -> npt.NDArray[Any]:
    column = batch.column(0)
    if not pa.types.is_fixed_size_list(column.type):
        matrix = _to_matrix(batch.columns, dtype)
        return matrix if len(shape) == 1 else np.ascontiguousarray(matrix).reshape(-1, *shape)
    return to_numbers(column.flatten(), dtype, is_exact=True).reshape(-1, *shape)


def _to_matrix(columns: Sequence[Any], dtype: Any) -> npt.NDArray[Any]:
    rows = len(columns[0])
    transposed = np.empty((len(columns), rows), dtype)
    for target, column in zip(transposed, columns, strict=True):
        if pa.types.is_float64(column.type) and np.dtype(dtype).kind == "f":
            target[:] = view_numbers(column, np.float64)
            if (nulls := find_nulls(column)) is not None:
                target[nulls] = np.nan
        else:
            target[:] = to_numbers(column, dtype, is_exact=True)
    return transposed.T
