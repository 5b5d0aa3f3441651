"""Parse JSON lines into columns with the types of the contract."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from pyarrow import json

from headrace.wire.bulk import ChunkStep
from headrace_worker.bulk.columns import ERROR, PREDICTION, describe_kind, needed_types
from headrace_worker.bulk.records import Records, is_utf8, to_texts

_OPEN, _CLOSE = ord("{"), ord("}")


class JsonParser:
    """Parses lines. An object has the columns of the contract; another value is the instance itself."""

    def __init__(self, schema: Any, step: ChunkStep) -> None:
        self._types = needed_types(schema.names, schema, step, all_columns=False)
        self._schema = pa.schema(list(self._types.items()))
        self._adds = PREDICTION.encode(), ERROR.encode()
        self._keeps_all = step.keep is None

    def parse(self, records: Records, first: int, last: int) -> tuple[Any, dict[int, str]]:
        """Return the columns of lines, and the rows that are refused, by their index. They have nulls."""
        data = records.data[records.starts[first] : records.ends[last - 1]] + b"\n"
        view = np.frombuffer(records.data, np.uint8)
        starts, ends = records.starts[first:last], records.ends[first:last]
        # Where each line begins and ends like an object, and there are as many objects as lines, each line is one.
        is_plain = bool((view[starts] == _OPEN).all() and (view[ends - 1] == _CLOSE).all())
        has_added_key = self._keeps_all and any(b'"' + name + b'"' in data for name in self._adds)
        if is_plain and not has_added_key and is_utf8(data):  # pyarrow would take other bytes as text too
            try:
                table = json.read_json(
                    pa.BufferReader(data),
                    read_options=json.ReadOptions(use_threads=False, block_size=max(len(data) + 1, 1024)),
                    parse_options=json.ParseOptions(
                        explicit_schema=self._schema, unexpected_field_behavior="ignore"
                    ),
                )
                if table.num_rows == last - first:
                    return table.select(self._schema.names).combine_chunks().to_batches()[0], {}
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                pass  # a value has another type: each line is looked at
        return self._parse_each(to_texts(records, first, last))

    def _parse_each(self, lines: list[bytes]) -> tuple[Any, dict[int, str]]:
        rows: list[dict[str, Any]] = []
        refused: dict[int, str] = {}
        for index, line in enumerate(lines):
            row: dict[str, Any] = {}
            try:
                value = msgspec.json.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                refused[index] = "the line is not a JSON value"
            else:
                row = value if isinstance(value, dict) else {self._schema.names[0]: value}
                if not isinstance(value, dict) and len(self._schema) != 1:
                    refused[index] = "the line is not an object"
                elif self._keeps_all and (PREDICTION in row or ERROR in row):
                    refused[index] = "the row has a key that the output adds: rename `prediction` and `error`"
            rows.append(row)
        columns = [
            _to_column(name, kind, [row.get(name) for row in rows], refused) for name, kind in self._types.items()
        ]
        return pa.RecordBatch.from_arrays(columns, names=self._schema.names), refused


def _to_column(name: str, kind: Any, values: list[Any], refused: dict[int, str]) -> Any:
    try:
        return _to_array(values, kind)
    except _NO_VALUE:
        pass
    for index, value in enumerate(values):
        try:
            _to_array([value], kind)
        except _NO_VALUE:
            refused.setdefault(index, f"{name!r} must be {describe_kind(kind)}")
            values[index] = None
    return _to_array(values, kind)


def _to_array(values: list[Any], kind: Any) -> Any:
    """Return values as an array. No text becomes a number, and no number a text."""
    if pa.types.is_temporal(kind):
        return pa.array(values, pa.string())  # the check of the contract reads them row by row
    if not pa.types.is_boolean(kind) and any(isinstance(value, bool) for value in values):
        raise TypeError
    return pa.array(values, kind)


_NO_VALUE = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, TypeError, OverflowError, ValueError)
