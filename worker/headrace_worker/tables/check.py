"""Check a table against a contract, column by column.

Valid rows stay in columns. Only rows that are doubtful become instances: `check_instances` then says what is wrong
with them, in the words of every other check, or coerces them, as it coerces an instance of a job.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.catalog.contract import Array, Contract, Feature, Named, Text, Tokens
from headrace.catalog.validation import check_instances
from headrace.errors import InvalidInput
from headrace.wire.message import Instance
from headrace_worker.tables.columns import select_columns
from headrace_worker.tables.instances import to_instances
from headrace_worker.tables.lists import check_lists, check_tokens
from headrace_worker.tables.values import CheckedColumn, Mask, check_column


class CheckedTable(msgspec.Struct, frozen=True, kw_only=True):
    """A table by its contract: each row is among `accepted`, `coerced` or `errors`."""

    #: The columns of the instances, as they were in the table: a RecordBatch of all rows.
    source: Any
    #: The accepted rows as a RecordBatch, in the types that runtimes take. None: no row.
    accepted: Any
    #: The numbers of the accepted rows in the table, ascending.
    accepted_rows: npt.NDArray[np.int64]
    #: The instances of valid rows that are not in columns, by the number of the row.
    coerced: dict[int, Instance]
    #: The messages about invalid rows, by the number of the row.
    errors: dict[int, str]


def check_table(contract: Contract, table: pa.Table | pa.RecordBatch) -> CheckedTable:
    """Check the rows of a table. Raises InvalidInput if its columns do not fit the contract, whatever the rows."""
    source = _to_batch(select_columns(contract, _to_table(table)))
    rows = source.num_rows
    checked = _check_columns(contract, source)
    doubtful = _find_doubtful(checked, rows)
    if doubtful is None:
        return _accept(source, checked, np.arange(rows))
    accepted_rows, doubtful_rows = np.flatnonzero(~doubtful), np.flatnonzero(doubtful)
    coerced, errors = _check_as_instances(contract, source, doubtful_rows)
    result = _accept(source, checked, accepted_rows)
    return msgspec.structs.replace(result, coerced=coerced, errors=errors)


def read_instances(contract: Contract, source: Any, rows: Sequence[int] | npt.NDArray[np.int64]) -> list[Instance]:
    """Return the instances of valid rows, as they are sent. Raises InvalidInput."""
    return check_instances(contract, to_instances(contract, source.take(pa.array(rows, pa.int64()))))


def _check_columns(contract: Contract, source: Any) -> list[CheckedColumn]:
    columns = source.columns
    match contract.input:
        case Named(features=features):
            by_name = {feature.name: feature for feature in features}
            return [
                check_column(by_name[name], column)
                for name, column in zip(source.schema.names, columns, strict=True)
            ]
        case Array(shape=shape) as array:
            if len(columns) == 1 and shape and not _is_plain(columns[0]):
                return [check_lists(array, columns[0])]
            feature = Feature(name="", kind=array.kind, nullable=array.nullable)
            return [check_column(feature, column) for column in columns]
        case Text():
            return [check_column(Feature(name="", kind="string"), columns[0])]
        case Tokens():
            return [check_tokens(columns[0])]


def _is_plain(column: Any) -> bool:
    return not pa.types.is_nested(column.type)


def _find_doubtful(columns: Sequence[CheckedColumn], rows: int) -> Mask | None:
    """Return which rows are doubtful in any column; None if none is."""
    doubtful: Mask | None = None
    for column in columns:
        if column.values is None:
            return np.ones(rows, dtype=np.bool_)
        if column.doubtful is not None:
            doubtful = column.doubtful if doubtful is None else doubtful | column.doubtful
    return doubtful if doubtful is not None and doubtful.any() else None


def _accept(source: Any, columns: Sequence[CheckedColumn], rows: npt.NDArray[np.int64]) -> CheckedTable:
    accepted = None
    if len(rows):
        arrays = [column.values for column in columns]
        accepted = pa.RecordBatch.from_arrays(arrays, names=source.schema.names)
        if len(rows) < source.num_rows:
            accepted = accepted.take(pa.array(rows))
    return CheckedTable(source=source, accepted=accepted, accepted_rows=rows, coerced={}, errors={})


def _check_as_instances(
    contract: Contract, source: Any, rows: npt.NDArray[np.int64]
) -> tuple[dict[int, Instance], dict[int, str]]:
    """Check rows as the instances of jobs. Return those that are valid, and the messages about the others."""
    instances = to_instances(contract, source.take(pa.array(rows)))
    numbers = rows.tolist()
    try:
        return dict(zip(numbers, check_instances(contract, instances), strict=True)), {}
    except InvalidInput:
        pass
    coerced: dict[int, Instance] = {}
    errors: dict[int, str] = {}
    for number, instance in zip(numbers, instances, strict=True):
        try:
            (coerced[number],) = check_instances(contract, [instance])
        except InvalidInput as error:
            errors[number] = _to_row_message(contract, str(error))
    return coerced, errors


def _to_row_message(contract: Contract, message: str) -> str:
    """Return the message about a job of one instance as that about a row: without model and instance number."""
    return message.removeprefix(f"{contract.model}@{contract.version}: ").replace("instance 0: ", "")


def _to_table(table: pa.Table | pa.RecordBatch) -> pa.Table:
    return pa.Table.from_batches([table]) if isinstance(table, pa.RecordBatch) else table


def _to_batch(table: pa.Table) -> Any:
    """Return a table as one RecordBatch."""
    columns = [_simplify(column) for column in table.columns]
    arrays = [column.combine_chunks() if column.num_chunks != 1 else column.chunk(0) for column in columns]
    return pa.RecordBatch.from_arrays(arrays, names=table.column_names)


def _simplify(column: Any) -> Any:
    """Return a column of texts or of runs in a layout from which Arrow can take rows."""
    if pa.types.is_string_view(column.type):
        return column.cast(pa.large_string())
    if pa.types.is_binary_view(column.type):
        return column.cast(pa.large_binary())
    return pc.run_end_decode(column) if pa.types.is_run_end_encoded(column.type) else column
