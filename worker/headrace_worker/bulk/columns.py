"""The columns of a chunk: those that the model takes, and those that the output keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from headrace.errors import InvalidInput
from headrace.wire.bulk import ChunkStep
from headrace_worker.bulk.sources import read_partitions

#: The columns that the output adds, behind those of the input.
PREDICTION, ERROR = "prediction", "error"


def select_columns(reference: str, names: Sequence[str], schema: Any, step: ChunkStep) -> list[str]:
    """Return the columns of a file to read, in the file's order. Raises InvalidInput for one that it lacks."""
    check_columns(reference, names, step)
    return list(needed_types(names, schema, step, all_columns=step.keep is None))


def check_columns(reference: str, names: Sequence[str], step: ChunkStep) -> None:
    """Raise InvalidInput if a file lacks a column that the output keeps, or has one that the output adds.

    Whether it has the columns of the model, the check of the contract decides.
    """
    if len(set(names)) != len(names):
        duplicate = next(name for name in names if list(names).count(name) > 1)
        raise InvalidInput(f"{reference} has two columns {duplicate!r}; rename one of them")
    present = {*names, *read_partitions(reference)}
    kept_names = present if step.keep is None else _named(step)
    missing = sorted(_named(step) - present)
    if missing:
        listed = ", ".join(repr(name) for name in missing[:10])
        have = ", ".join(repr(name) for name in [*names, *read_partitions(reference)][:20])
        raise InvalidInput(f"{reference} lacks columns that the run keeps: {listed}; it has {have}")
    conflict = next((name for name in (PREDICTION, ERROR) if name in kept_names), None)
    if conflict is not None:
        raise InvalidInput(
            f"{reference} has a column {conflict!r}, which the output adds; rename it, or name the columns to keep"
        )


def needed_types(names: Sequence[str], schema: Any, step: ChunkStep, *, all_columns: bool) -> dict[str, Any]:
    """Return the columns of a file to read, with the types that text becomes: those of the contract, else texts.

    Where the contract has a list or a text, and the file has no column of its name, every column is one of its
    values.
    """
    types: dict[str, Any] = {} if schema is None else {field.name: field.type for field in schema}
    if len(types) == 1 and not set(types) & {*names}:
        [kind] = types.values()
        while pa.types.is_list(kind):
            kind = kind.value_type
        types = dict.fromkeys([name for name in names if name not in _named(step)] or names, kind)
    return {
        name: types.get(name, pa.string())
        for name in names
        if all_columns or schema is None or name in types or name in _named(step)
    }


def describe_kind(kind: Any) -> str:
    """Return the words for a type of values, as the check of the contract says them."""
    types = pa.types
    if types.is_integer(kind):
        return "an integer"
    if types.is_boolean(kind):
        return "a boolean"
    if types.is_floating(kind):
        return "a number"
    return "a list" if types.is_list(kind) else "a string"


def _named(step: ChunkStep) -> set[str]:
    return {*(step.keep or ()), *([step.key] if step.key else [])}


def output_columns(rows: Any, step: ChunkStep) -> list[str]:
    """Return the columns of a slice that the output keeps, in their order."""
    if step.keep is None:
        return list(rows.schema.names)
    return [name for name in rows.schema.names if name in _named(step)]


def add_partitions(batch: Any, reference: str, schema: Any, step: ChunkStep) -> Any:
    """Add the columns that the folders of the path set. A column of the file goes before one of the path."""
    for name, value in read_partitions(reference).items():
        is_feature = schema is not None and name in schema.names
        if name in batch.schema.names or not (is_feature or step.keep is None or name in (*step.keep, step.key)):
            continue
        column = pa.nulls(batch.num_rows, pa.string()) if value is None else pa.array([value] * batch.num_rows)
        if is_feature:
            try:
                column = column.cast(schema.field(name).type)
            except (pa.ArrowException, NotImplementedError):
                raise InvalidInput(
                    f"{reference}: the folder of {name!r} has a value that is not "
                    f"{describe_kind(schema.field(name).type)}"
                ) from None
        batch = pa.RecordBatch.from_arrays([*batch.columns, column], names=[*batch.schema.names, name])
    return batch
