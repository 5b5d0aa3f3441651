"""Lines of a CSV to Arrow columns, many at a time, by the types of the contract.

It converts plain lines whose values are all valid: without a quote, in UTF-8, with a cell for each column. For any
other lines it returns None, and they are read row by row (`reader`), which knows what is wrong with each. So both
ways have the same values and the same errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from headrace.batch.columns import BOOLEANS, Columns, make_cell_reader
from headrace.catalog.contract import Array, Contract, Feature, Named
from headrace.catalog.validation import coerce_value
from headrace.text import MISSING_TEXTS

#: The largest integer up to which 64-bit floats hold all integers.
_MAX_EXACT = 2**53
#: The spellings of a boolean. pyarrow compares them letter by letter.
_SPELLINGS = {
    value: [
        text for word in BOOLEANS for text in (word, word.capitalize(), word.upper()) if BOOLEANS[word] is value
    ]
    for value in (True, False)
}
_TYPES = {"number": pa.float64(), "integer": pa.int64(), "boolean": pa.bool_()}


class CsvConverter:
    """Converts the lines of one CSV. `header` are its columns, `sent` those that make an instance."""

    def __init__(self, contract: Contract, header: Sequence[str], sent: Columns, delimiter: str) -> None:
        self._features = _list_features(contract, sent)
        self._names = [header[index] for index, _ in sent.readers]
        self._parse = pa_csv.ParseOptions(delimiter=delimiter, quote_char=False, newlines_in_values=False)
        self._header = list(header)
        self._has_integers = any(feature.kind == "integer" for feature in self._features)

    def convert(self, lines: Sequence[bytes]) -> Any:
        """Return a RecordBatch of the instances in lines without line feeds; None if some are not plain or valid.

        Empty lines hold no instance.
        """
        data = b"\n".join(lines) + b"\n"
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        if not _is_plain(data) or (self._has_integers and b"0x" in data.lower()):
            return None
        table = self._read(data, _TYPES)
        if table is None and self._has_integers:  # pandas writes integers with gaps as 1.0, 2.0
            table = self._read(data, {**_TYPES, "integer": pa.float64()})
        if table is None:
            return None
        columns = []
        for feature, name in zip(self._features, self._names, strict=True):
            column = _check_column(feature, table.column(name))
            if column is None:
                return None
            columns.append(column)
        return pa.RecordBatch.from_arrays(columns, names=[feature.name for feature in self._features])

    def _read(self, data: bytes, types: dict[str, Any]) -> Any:
        named = zip(self._names, self._features, strict=True)
        convert = pa_csv.ConvertOptions(
            column_types={name: types.get(feature.kind, pa.string()) for name, feature in named},
            include_columns=self._names,
            null_values=sorted(MISSING_TEXTS),
            true_values=_SPELLINGS[True],
            false_values=_SPELLINGS[False],
            strings_can_be_null=False,
        )
        read = pa_csv.ReadOptions(column_names=self._header, use_threads=False, block_size=len(data) + 1)
        try:
            return pa_csv.read_csv(
                pa.py_buffer(data), read_options=read, parse_options=self._parse, convert_options=convert
            ).combine_chunks()
        except (pa.ArrowInvalid, pa.ArrowKeyError):
            return None


def _list_features(contract: Contract, sent: Columns) -> list[Feature]:
    """Return the feature of each column that is sent, in order."""
    match contract.input:
        case Named(features=features):
            by_name = {feature.name: feature for feature in features}
            return [by_name[name] for name in sent.names or ()]
        case Array(kind=kind, nullable=nullable):
            return [Feature(name=str(number), kind=kind, nullable=nullable) for number in range(len(sent.readers))]
        case _:
            raise TypeError("instances of this contract have no columns")


def _is_plain(data: bytes) -> bool:
    if b'"' in data or b"\r" in data or b"\0" in data:
        return False
    try:
        data.isascii() or data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _check_column(feature: Feature, column: Any) -> Any:
    """Return a column as it is sent, an Array; None if a value is not valid."""
    column = column.chunk(0) if column.num_chunks else pa.nulls(0, column.type)
    if feature.kind not in _TYPES:
        return _convert_texts(feature, column)
    if column.null_count and not feature.nullable:
        return None
    if feature.kind == "boolean" or not pa.types.is_floating(column.type):
        return column
    if not pc.all(pc.is_finite(column), min_count=0).as_py():
        return None
    if feature.kind == "integer":
        largest = pc.max(pc.abs(column)).as_py()
        if largest is not None and largest >= _MAX_EXACT:
            return None
        try:
            return column.cast(pa.int64())
        except pa.ArrowInvalid:  # a number between two integers
            return None
    return column


def _convert_texts(feature: Feature, column: Any) -> Any:
    """Convert a column of texts by the functions of single cells, each text once."""
    read = make_cell_reader(feature)
    encoded = column.dictionary_encode()
    values = []
    for text in encoded.dictionary.to_pylist():
        value, problem = coerce_value(feature, read(text))
        if problem:
            return None
        values.append(value)
    try:
        return pa.array(values).take(encoded.indices) if values else pa.nulls(0, pa.string())
    except (pa.ArrowException, OverflowError):
        return None
