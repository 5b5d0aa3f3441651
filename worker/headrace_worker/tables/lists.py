"""Check a column of lists: of one shape, with values of one kind, or of texts of any number."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.catalog.contract import Array, Feature
from headrace_worker.runtimes.arrow_columns import find_nulls
from headrace_worker.tables.values import ALL_DOUBTFUL, CheckedColumn, Mask, check_column


def check_lists(array_schema: Array, column: Any) -> CheckedColumn:
    """Check nested lists: the column is of lists of a fixed size, which hold all values of the nested lists.

    A table of which a list has another length is doubtful as a whole: its rows are checked as instances.
    """
    values, rows = column, len(column)
    for length in array_schema.shape:
        values = _flatten(values, length)
        if values is None:
            return ALL_DOUBTFUL
    size = prod(array_schema.shape)
    checked = check_column(Feature(name="", kind=array_schema.kind, nullable=array_schema.nullable), values)
    if checked.values is None or size == 0:
        return ALL_DOUBTFUL
    doubtful: Mask | None = None
    if checked.doubtful is not None:
        doubtful = np.logical_or.reduce(checked.doubtful.reshape(rows, size), axis=1)
    return CheckedColumn(pa.FixedSizeListArray.from_arrays(checked.values, size), doubtful)


def check_tokens(column: Any) -> CheckedColumn:
    """Check lists of texts of any length."""
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        return ALL_DOUBTFUL
    texts = column.flatten()
    if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)) or texts.null_count:
        return ALL_DOUBTFUL
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        return ALL_DOUBTFUL
    return CheckedColumn(column, find_nulls(column))


def _flatten(column: Any, length: int) -> Any:
    """Return the items of lists which all have a length; None if they do not, or a list is null."""
    types, kind = pa.types, column.type
    if column.null_count:
        return None
    if types.is_fixed_size_list(kind):
        return column.flatten() if kind.list_size == length else None
    if not (types.is_list(kind) or types.is_large_list(kind)):
        return None
    lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    return column.flatten() if (lengths == length).all() else None
