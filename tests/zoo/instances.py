"""Rows of a typed table as a producer writes them, and an estimator's output as JSON has it.

Both are written for the zoo alone, so that a fault of Headrace's own conversions shows.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa


def to_instances(table: Any) -> list[Any]:
    """Return the rows of a table: objects of a frame, lists of an array, texts and objects as they are."""
    if hasattr(table, "to_dicts"):  # polars
        rows = table.to_dicts()
    elif isinstance(table, pd.DataFrame):
        names = [str(name) for name in table.columns]
        rows = [dict(zip(names, row, strict=True)) for row in table.astype(object).itertuples(index=False)]
    else:
        rows = list(table)
    return list(json.loads(json.dumps([_to_json(row) for row in rows])))


def to_arrow(table: Any) -> pa.Table:
    """Return a table as Arrow: the columns of a frame or an array, objects by key, and other rows as a column."""
    if hasattr(table, "to_arrow"):  # polars
        return table.to_arrow()
    if isinstance(table, pd.DataFrame):
        return pa.Table.from_pandas(table.rename(columns=str), preserve_index=False)
    if isinstance(table, np.ndarray) and table.ndim == 2 and table.dtype.kind in "iufb":
        return pa.table({str(number): pa.array(column) for number, column in enumerate(table.T.copy())})
    rows = to_instances(table)
    return pa.Table.from_pylist(rows) if isinstance(rows[0], dict) else pa.table({"instance": rows})


def to_answers(output: Any, rows: int) -> list[Any]:
    """Return an estimator's output for a number of rows, one entry for each."""
    if isinstance(output, list | tuple) and len(output) != rows and all(len(block) == rows for block in output):
        output = list(zip(*output, strict=True))
    if hasattr(output, "toarray"):
        return [_to_sparse(row) for row in output.toarray()]
    if hasattr(output, "to_numpy"):
        output = output.to_numpy()
    if isinstance(output, list) and output and isinstance(output[0], np.ndarray) and output[0].ndim == 2:
        output = [[block[row] for block in output] for row in range(rows)]
    return [_to_json(row) for row in output]


def find_difference(expected: Any, answer: Any, tolerance: float) -> float | None:
    """Return the largest difference of numbers, relative to the number or to 1; None for unequal answers."""
    if isinstance(expected, list) and len(expected) == 1 and isinstance(answer, str):
        expected = expected[0]  # CatBoost returns labels as a column
    if isinstance(expected, list):
        if not isinstance(answer, list) or len(answer) != len(expected):
            return None
        differences = [find_difference(*pair, tolerance) for pair in zip(expected, answer, strict=True)]
        return (
            None
            if None in differences
            else max((number for number in differences if number is not None), default=0.0)
        )
    if isinstance(expected, dict):
        if not isinstance(answer, dict) or answer.keys() != expected.keys():
            return None
        return find_difference(list(expected.values()), [answer[name] for name in expected], tolerance)
    if isinstance(expected, float) and isinstance(answer, float | int) and not isinstance(answer, bool):
        difference = abs(expected - answer) / max(1.0, abs(expected))
        return difference if difference <= tolerance else None
    return 0.0 if type(expected) is type(answer) and expected == answer else None


def _to_sparse(row: Any) -> dict[str, list[Any]]:
    (indices,) = np.nonzero(row)
    return {"indices": indices.tolist(), "values": row[indices].tolist()}


def _to_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _to_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_to_json(item) for item in value]
    if _is_missing(value):
        return None
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if isinstance(value, dt.date):
        return value.isoformat()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value))
