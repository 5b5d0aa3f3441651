"""The rows of a table as instances, for rows that are predicted or checked as jobs are."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from math import prod
from typing import Any

import pyarrow as pa

from headrace.catalog.contract import Array, Contract, Named


def to_instances(contract: Contract, columns: pa.Table | pa.RecordBatch) -> list[Any]:
    """Return an instance for each row of the columns that `select_columns` returns.

    The instances are not checked: values are of Python's types, as a client may give them. A null in a feature
    that an instance may leave out leaves it out, as an empty cell of a CSV does.
    """
    values = [to_values(column) for column in columns.columns]
    if isinstance(contract.input, Named):
        optional = {feature.name for feature in contract.input.features if feature.optional}
        names = list(columns.schema.names)
        rows = (zip(names, row, strict=True) for row in zip(*values, strict=True))
        if optional:
            return [
                {name: value for name, value in row if value is not None or name not in optional} for row in rows
            ]
        return [dict(row) for row in rows]
    if isinstance(contract.input, Array) and _holds_values(contract.input, columns.schema):
        return [_nest(row, contract.input.shape) for row in zip(*values, strict=True)]
    return values[0]


def _holds_values(array: Array, schema: pa.Schema) -> bool:
    """Decide whether each column is a value of a list; else the only column holds the lists."""
    return len(schema) == prod(array.shape) and not any(map(pa.types.is_nested, schema.types))


def to_values(column: Any) -> list[Any]:
    """Return the values of an array of any type, as Python has them."""
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        # The instant is the same in each zone, and Python may not know the zone's name.
        column = column.cast(pa.timestamp(kind.unit, tz="UTC"))
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError, ArithmeticError, ImportError):
        return [_to_value(scalar) for scalar in column]


def _to_value(scalar: Any) -> Any:
    """Return a value; for one that Python cannot hold, an object that no feature accepts."""
    with suppress(ValueError, OverflowError, ArithmeticError, ImportError):
        return scalar.as_py()
    return _Unreadable()


class _Unreadable:
    """A text that is not UTF-8, or a datetime outside of the years 1 to 9999."""


def _nest(values: Sequence[Any], shape: Sequence[int]) -> list[Any]:
    if len(shape) == 1:
        return list(values)
    step = len(values) // shape[0] if shape[0] else 0
    return [_nest(values[start : start + step], shape[1:]) for start in range(0, len(values), step)]
