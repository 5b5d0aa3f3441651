"""Rows and columns of a table to the instances of a job, by the form of a model's contract.

Named features are matched by the names of columns, and columns that are no features are left out: a table often
has more than a model takes. Without names, values are in the contract's order.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from headrace.batch.columns import CellReader, make_cell_reader
from headrace.catalog.contract import Array, Contract, Feature, Named, Text
from headrace_gateway.problems import Problem


def make_instances(contract: Contract, names: Sequence[str] | None, rows: Iterable[Sequence[Any]]) -> list[Any]:
    """Return an instance for each row. `names` are the columns; None: they have no names.

    What does not fit stays in an instance: the check against the contract, which follows, names it.
    """
    match contract.input:
        case Named(features=features):
            return [*_make_objects(features, names, rows)]
        case Array(shape=()) | Text():
            return [row[0] if len(row) == 1 else list(row) for row in rows]
        case _:
            return [list(row) for row in rows]


def select_features(contract: Contract, record: Any) -> Any:
    """Return a record without the members that are no features, if it has all features that it needs.

    The contract's check refuses the others, and says which name may be meant.
    """
    if not isinstance(contract.input, Named) or not isinstance(record, dict):
        return record
    features = contract.input.features
    names = {feature.name for feature in features}
    if record.keys() <= names or any(not feature.optional and feature.name not in record for feature in features):
        return record
    return {name: value for name, value in record.items() if name in names}


def _make_objects(
    features: Sequence[Feature], names: Sequence[str] | None, rows: Iterable[Sequence[Any]]
) -> Iterator[Any]:
    expected = [feature.name for feature in features]
    if names is None:
        for row in rows:
            yield dict(zip(expected, row, strict=True)) if len(row) == len(expected) else list(row)
        return
    lacking = {feature.name for feature in features if not feature.optional} - set(names)
    features_only = set(names if lacking else expected)
    indexes = [index for index, name in enumerate(names) if name in features_only]
    selected = [names[index] for index in indexes]
    for row in rows:
        yield dict(zip(selected, (row[index] for index in indexes), strict=True))


def check_names(names: Sequence[str]) -> None:
    """Raise a Problem (400) if two columns have the same name."""
    positions: dict[str, int] = {}
    for position, name in enumerate(names, start=1):
        if name in positions:
            raise _malformed(f"columns {positions[name]} and {position} are both named {name[:64]!r}; rename one")
        positions[name] = position


def read_csv(contract: Contract, text: bytes, *, header: bool = True) -> list[Any]:
    """Return the instances in a CSV, whose first line is the names of its columns if it has a `header`.

    Cells are read by the kinds of the contract: an empty cell is a missing value. Raises a Problem (400) that
    names the line.
    """
    try:
        lines = csv.reader(io.StringIO(str(text, "utf-8-sig"), newline=""), strict=True)
        table = [(lines.line_num, cells) for cells in lines if cells]
    except UnicodeDecodeError:
        raise _malformed("the CSV is not UTF-8") from None
    except csv.Error as error:
        raise _malformed(f"the CSV cannot be read: {error}") from None
    names = table.pop(0)[1] if header and table else None
    if not table:
        raise _malformed("the CSV has no row of values" + (" after the line of column names" if header else ""))
    check_names(names or ())
    width = len(names or table[0][1])
    for line, cells in table:
        if len(cells) != width:
            raise _malformed(f"line {line} of the CSV has {len(cells):,} cells, and the first line {width:,}")
    readers = _make_readers(contract, names, width)
    rows = ([read(cell) for read, cell in zip(readers, cells, strict=True)] for _, cells in table)
    return make_instances(contract, names, rows)


def _make_readers(contract: Contract, names: Sequence[str] | None, width: int) -> list[CellReader]:
    """Return a function for each column, which reads the text of its cells."""
    match contract.input:
        case Named(features=features) if names is not None:
            by_name = {feature.name: make_cell_reader(feature) for feature in features}
            return [by_name.get(name, str) for name in names]
        case Named(features=features) if len(features) == width:
            return [make_cell_reader(feature) for feature in features]
        case Array(kind=kind, nullable=nullable):
            return [make_cell_reader(Feature(name="", kind=kind, nullable=nullable))] * width
        case _:
            return [str] * width


def _malformed(detail: str) -> Problem:
    return Problem(400, "malformed-body", detail)
