"""Read a typed table: a frame of pandas or polars, an array, or a Parquet file, with the type of each column.

A list of instances and a file of JSON or CSV have no types. `infer_input` and `infer_dtypes` find those by trials.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from headrace.catalog.contract import Array, Feature, Kind, Named
from headrace.catalog.datetimes import to_text
from headrace.errors import ModelError
from headrace_worker.packaging.infer_input import infer_kind
from headrace_worker.runtimes import InputSchema
from headrace_worker.runtimes.columns import ARROW_STRING, CATEGORY, ORDERED_CATEGORY


class Table(NamedTuple):
    """Instances, and their schema if the table they come from has types."""

    instances: list[Any]
    schema: InputSchema | None = None
    #: The table as the estimator itself takes it; None if it was read from a file without types.
    data: Any = None


def read_table(data: Any) -> Table:
    """Read a frame, an array or a list of instances. Raises ModelError."""
    frame = _to_pandas(data) if hasattr(data, "to_pandas") else data
    if isinstance(frame, pd.DataFrame):
        return _read_frame(frame)._replace(data=data)
    if hasattr(data, "toarray"):
        raise ModelError(
            "the table is sparse, and jobs are not; give its rows as `X.toarray()`, or the model's input"
        )
    if isinstance(data, np.ndarray):
        return _read_array(data)
    if isinstance(data, pd.Series):
        return Table([_to_value(value) for value in data.tolist()], data=data)
    if isinstance(data, list | tuple):
        instances = [_to_value(value) for value in data]
        # A model that was fitted on named columns does not take a list of objects itself.
        return Table(instances, data=None if any(isinstance(row, dict) for row in instances) else list(data))
    raise ModelError(
        f"a table is a frame of pandas or polars, an array, or a list of instances; got a {type(data).__name__}"
    )


def read_parquet(data: bytes, title: str) -> Table:
    """Read the bytes of a Parquet file. Raises ModelError."""
    try:
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise ModelError(
            f"{title} is Parquet, which needs pyarrow: pip install 'headrace-worker[parquet]'"
        ) from None
    try:
        frame = pyarrow.parquet.read_table(io.BytesIO(data)).to_pandas()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise ModelError(
            f"{title} is not a Parquet file that can be read: {' '.join(str(error).split())}"
        ) from None
    return read_table(frame)


def _to_pandas(data: Any) -> pd.DataFrame:
    try:
        converted = data.to_pandas()
    except ModuleNotFoundError as error:
        raise ModelError(
            f"a frame of {type(data).__module__.partition('.')[0]} is converted by {error.name}: pip install "
            f"{error.name}, or give the frame as pandas"
        ) from None
    if not isinstance(converted, pd.DataFrame):
        raise ModelError(f"a {type(data).__name__} is not a table of named columns")
    return converted


def _read_frame(frame: pd.DataFrame) -> Table:
    names = [str(name) for name in frame.columns]
    if len(set(names)) != len(names):
        duplicate = next(name for name in names if names.count(name) > 1)
        raise ModelError(f"the table has two columns {duplicate!r}")
    columns = [_to_values(frame.iloc[:, number]) for number in range(len(names))]
    features = [
        _describe_column(name, frame.iloc[:, number], columns[number]) for number, name in enumerate(names)
    ]
    return Table(
        [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)],
        Named(features=tuple(features)),
    )


def _read_array(array: np.ndarray[Any, Any]) -> Table:
    if array.ndim == 0 or array.dtype.kind not in "iufbOU":
        raise ModelError(
            f"an array of instances has rows of numbers, booleans or texts; got {array.dtype} {array.shape}"
        )
    instances = [_to_value(value) for value in array.tolist()]
    if array.dtype.kind not in "iufb":
        return Table(instances, data=array)
    kinds: dict[str, Kind] = {"f": "number", "b": "boolean"}
    schema = Array(
        shape=array.shape[1:],
        kind=kinds.get(array.dtype.kind, "integer"),
        nullable=array.dtype.kind == "f" and bool(np.isnan(array).any()),
        dtype=array.dtype.name,
    )
    return Table(instances, schema, array)


def _describe_column(name: str, column: pd.Series[Any], values: Sequence[Any]) -> Feature:
    dtype, nullable = column.dtype, any(value is None for value in values)
    if isinstance(dtype, pd.CategoricalDtype):
        categories = tuple(dtype.categories.tolist())
        if not all(isinstance(category, str | int | float | bool) for category in categories):
            raise ModelError(f"the categories of the column {name!r} are neither texts nor numbers")
        return Feature(
            name=name,
            kind="category",
            nullable=nullable,
            categories=categories,
            dtype=ORDERED_CATEGORY if dtype.ordered else CATEGORY,
        )
    is_arrow_string = isinstance(dtype, pd.ArrowDtype) and dtype.type is str
    return Feature(
        name=name,
        kind="string" if is_arrow_string else _infer_kind(name, dtype, column, values),
        nullable=nullable,
        dtype=ARROW_STRING if is_arrow_string else str(dtype),
    )


def _infer_kind(name: str, dtype: Any, column: pd.Series[Any], values: Sequence[Any]) -> Kind:
    if pd.api.types.is_bool_dtype(dtype):
        return "boolean"
    if pd.api.types.is_integer_dtype(dtype):
        return "integer"
    if pd.api.types.is_float_dtype(dtype):
        return "number"
    if isinstance(dtype, pd.StringDtype):
        return "string"
    if isinstance(dtype, pd.DatetimeTZDtype) or (isinstance(dtype, np.dtype) and dtype.kind == "M"):
        return "datetime"
    if str(dtype) == "object" and pd.api.types.infer_dtype(column, skipna=True) == "date":
        return "date"
    if str(dtype) == "object" and all(
        value is None or isinstance(value, str | int | float | bool) for value in values
    ):
        return infer_kind(values)
    raise ModelError(
        f"the column {name!r} has the type {dtype}; a feature is a number, an integer, a boolean, a text, "
        "a category, a datetime64 or a date; convert the column, and fit the model on that"
    )


def _to_values(column: pd.Series[Any]) -> list[Any]:
    """Return a column as JSON has it; missing values are None."""
    values = column.astype(object).to_list()
    return [
        None if is_missing else _to_value(value) for value, is_missing in zip(values, column.isna(), strict=True)
    ]


def _to_value(value: Any) -> Any:
    value = to_text(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(name): _to_value(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_value(item) for item in value]
    return None if isinstance(value, float) and value != value else value  # noqa: PLR0124  # NaN
