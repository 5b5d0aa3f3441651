"""Frames of pyarrow, pandas and polars: their columns as Arrow, and results beside the columns that are kept.

The types of the results never depend on their values, so all partitions of a table have the same. In pandas,
integers and booleans are `Int64` and `boolean`, which have missing values, as a row that fails has no prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa

from headrace.errors import InvalidInput
from headrace_worker.udf.cells import to_array
from headrace_worker.udf.schemas import ERROR, PREDICTION

if TYPE_CHECKING:
    import polars as pl


class Frame(Protocol):
    """A frame of any library."""

    columns: list[str]
    rows: int

    def to_arrow(self, names: Sequence[str]) -> Any:
        """Return columns as a `pyarrow.Table`."""
        ...

    def with_results(self, names: Sequence[str], predictions: Any, errors: Any) -> Any:
        """Return a frame of the same library: these columns, the predictions and the errors, row by row."""
        ...


def wrap(frame: Any) -> Frame:
    """Return the frame with the methods of Frame. Raises InvalidInput for what is no frame."""
    if isinstance(frame, pa.Table | pa.RecordBatch):
        wrapped: Frame = ArrowFrame(frame)
    elif isinstance(frame, pd.DataFrame):
        wrapped = PandasFrame(frame)
    elif type(frame).__module__.partition(".")[0] == "polars" and hasattr(frame, "to_arrow"):
        wrapped = PolarsFrame(frame)
    else:
        raise InvalidInput(_explain(frame))
    names = wrapped.columns
    if duplicate := next((name for name in names if names.count(name) > 1), None):
        raise InvalidInput(f"the frame has two columns {duplicate!r}; rename one of them")
    return wrapped


class ArrowFrame:
    """A Table or RecordBatch of pyarrow."""

    def __init__(self, table: Any) -> None:
        self._table = table
        self.columns: list[str] = list(table.schema.names)
        self.rows: int = table.num_rows

    def to_arrow(self, names: Sequence[str]) -> Any:
        """Return columns as a table."""
        selected = self._table.select(list(names))
        return selected if isinstance(selected, pa.Table) else pa.Table.from_batches([selected])

    def with_results(self, names: Sequence[str], predictions: Any, errors: Any) -> Any:
        """Return a Table or a RecordBatch, as this is."""
        selected = self._table.select(list(names))
        schema = selected.schema
        for name, values in ((PREDICTION, predictions), (ERROR, errors)):
            schema = schema.append(pa.field(name, values.type))
        return type(self._table).from_arrays([*selected.columns, predictions, errors], schema=schema)


class PandasFrame:
    """A frame of pandas. Its index is kept."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame = frame
        self.columns = [str(name) for name in frame.columns]
        self.rows = len(frame)

    def to_arrow(self, names: Sequence[str]) -> Any:
        """Return columns as a table. NaN, None, NA and NaT are nulls."""
        return pa.table([to_array(self._column(name)) for name in names], list(names))

    def with_results(self, names: Sequence[str], predictions: Any, errors: Any) -> Any:
        """Return a frame with this frame's index."""
        results = {str(name): self._column(name) for name in names}
        for name, values in ((PREDICTION, predictions), (ERROR, errors)):
            results[name] = to_pandas(values).set_axis(self._frame.index)
        return pd.DataFrame(results, index=self._frame.index)

    def _column(self, name: str) -> pd.Series[Any]:
        return self._frame.iloc[:, self.columns.index(name)]


class PolarsFrame:
    """A frame of polars."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self._frame = frame
        self.columns = frame.columns
        self.rows = frame.height

    def to_arrow(self, names: Sequence[str]) -> Any:
        """Return columns as a table."""
        return self._frame.select(names).to_arrow()

    def with_results(self, names: Sequence[str], predictions: Any, errors: Any) -> Any:
        """Return a frame of polars."""
        import polars as pl

        results = [
            pl.Series(pl.from_arrow(values)).alias(name)
            for name, values in ((PREDICTION, predictions), (ERROR, errors))
        ]
        return self._frame.select(names).with_columns(results)


def to_pandas(values: Any) -> pd.Series[Any]:
    """Return an Arrow array as a column of pandas, of a type that depends on the array's type only."""
    types = {
        pa.int64(): pd.Int64Dtype(),
        pa.bool_(): pd.BooleanDtype(),
        pa.string(): pd.StringDtype(na_value=np.nan),
    }
    series: pd.Series[Any] = values.to_pandas(types_mapper=types.get)
    return series


def _explain(frame: Any) -> str:
    """Return what to do with a value that is no frame."""
    kind = type(frame).__name__
    if isinstance(frame, dict):
        return 'a Predictor takes frames, got a dict of columns; in Ray Data, set batch_format="pyarrow"'
    if kind == "LazyFrame":
        return "a Predictor takes frames, got a LazyFrame of polars; collect it, or call its map_batches"
    if type(frame).__module__.partition(".")[0] == "dask":
        return "a Predictor takes frames, got a frame of Dask; call its map_partitions"
    if type(frame).__module__.partition(".")[0] == "pyspark":
        return "a Predictor takes frames, got a frame of Spark; call its mapInArrow or mapInPandas with `.frames`"
    if hasattr(frame, "__next__") or isinstance(frame, pa.RecordBatchReader):
        return f"a Predictor takes a frame, got a {kind} of them; call its `frames`"
    return f"a Predictor takes a Table or RecordBatch of pyarrow, or a frame of pandas or polars; got a {kind}"
