"""Instances in columns: the form in which the rows of a table are sent.

In a message they are an object in place of the list of instances, so that the message stays plain JSON:

    {"rows": 2, "columns": {"age": [41, 18], "plan": ["gold", null]}}
    {"rows": 2, "arrow": "..."}     (`headrace.wire.arrow`)

The columns are the named features, or the values of instances that are lists, in order. Everywhere else they are a
sequence of instances as any other.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NoReturn, overload

import msgspec

from headrace.errors import InvalidInput

#: How instances in columns are written in a message.
ColumnsForm = Literal["arrow", "json"]

_ROWS, _COLUMNS, _ARROW = "rows", "columns", "arrow"


class Columns(Sequence[Any]):
    """The instances of a job, in columns."""

    def __init__(self, rows: int, *, named: bool = True) -> None:
        self._rows = rows
        #: True if instances are objects, False if they are lists of values.
        self.named = named

    @abstractmethod
    def encode(self) -> bytes:
        """Return the instances as they are written in a message: an object, as JSON."""

    @abstractmethod
    def select(self, start: int, end: int) -> Sequence[Any]:
        """Return the instances from `start` to `end`, exclusive, one after the other."""

    @property
    @abstractmethod
    def column_count(self) -> int:
        """The number of columns."""

    def __len__(self) -> int:
        return self._rows

    @overload
    def __getitem__(self, index: int) -> Any: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Any]: ...

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        return self.select(number, number + 1)[0]

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self), _ROWS_TOGETHER):
            yield from self.select(start, min(start + _ROWS_TOGETHER, len(self)))


#: Instances that are made at a time when all are read one after the other.
_ROWS_TOGETHER = 1000


class JsonColumns(Columns):
    """Instances in columns of JSON values. All columns have the same length."""

    def __init__(self, columns: Mapping[str, list[Any]], rows: int, *, named: bool = True) -> None:
        super().__init__(rows, named=named)
        self.columns = columns

    @property
    def column_count(self) -> int:
        """The number of columns."""
        return len(self.columns)

    def encode(self) -> bytes:
        """Return the instances as they are written in a message."""
        return msgspec.json.encode({_ROWS: len(self), _COLUMNS: self.columns})

    def select(self, start: int, end: int) -> list[Any]:
        """Return the instances from `start` to `end`, exclusive, one after the other."""
        rows = zip(*(values[start:end] for values in self.columns.values()), strict=True)
        return [dict(zip(self.columns, row, strict=True)) for row in rows] if self.named else [*map(list, rows)]


class EncodedColumns(Columns):
    """Instances in a form that is not decoded yet. They have a length and nothing else."""

    def __init__(self, rows: int, encoded: str) -> None:
        super().__init__(rows)
        self.encoded = encoded

    @property
    def column_count(self) -> int:
        """The number of columns that are certain: one."""
        return 1

    def encode(self) -> bytes:
        """Return the instances as they were in the message."""
        return encode_arrow(len(self), self.encoded.encode())

    def select(self, start: int, end: int) -> list[Any]:  # noqa: ARG002  # see Columns
        """Raise InvalidInput: only a worker decodes them."""
        raise InvalidInput(f"the {len(self):,} instances are an Arrow stream, which is not decoded here")


def encode_arrow(rows: int, encoded: bytes) -> bytes:
    """Return the instances in an Arrow stream, given as base64, as they are written in a message."""
    return b'{"%b":%d,"%b":"%b"}' % (_ROWS.encode(), rows, _ARROW.encode(), encoded)


def read_columns(arguments: dict[str, Any]) -> JsonColumns | EncodedColumns:
    """Return the instances that an object in place of a list describes. Raises InvalidInput."""
    rows = arguments.get(_ROWS)
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1 or len(arguments) != 2:
        _refuse("")
    encoded, columns = arguments.get(_ARROW), arguments.get(_COLUMNS)
    if isinstance(encoded, str):
        return EncodedColumns(rows, encoded)
    if not isinstance(columns, dict) or not columns:
        _refuse("")
    for name, values in columns.items():
        if not isinstance(values, list) or len(values) != rows:
            _refuse(f"; column {name[:64]!r} is no list of {rows:,} values")
    return JsonColumns(columns, rows)


def _refuse(detail: str) -> NoReturn:
    raise InvalidInput(
        "a job's arguments are [model, instances]; instances in columns are an object "
        '{"rows": N, "columns": {name: [N values], ...}} or {"rows": N, "arrow": base64 of an Arrow stream}'
        f"{detail}; other instances are a list"
    )
