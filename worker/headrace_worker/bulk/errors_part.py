"""The errors part of a chunk: its rows that failed, with their reasons and their original values.

    out:scores/part-00017.parquet
    out:scores/errors/part-00017.parquet    file, row, key, reason, message, original

It is Parquet for every format, and exists only if rows failed. `original` is the row as a JSON object, or the
text of a record that is not even a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import msgspec
import pyarrow as pa
from pyarrow import parquet

from headrace.wire.bulk import ChunkStep
from headrace_worker.bulk.locations import Locations, join_reference, parent_reference
from headrace_worker.bulk.slices import Slice
from headrace_worker.bulk.text_file import split_cells

#: The folder of errors parts in a folder of outputs.
ERRORS_FOLDER = "errors"

SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("row", pa.int64()),
        ("key", pa.string()),
        ("reason", pa.string()),
        ("message", pa.string()),
        ("original", pa.string()),
    ]
)

#: The rows and the characters of originals at which a row group is written.
_GROUP_ROWS, _GROUP_CHARACTERS = 10_000, 16 * 1024**2


class ErrorsWriter:
    """Writes the errors part of a chunk, from the first failed row on."""

    def __init__(self, locations: Locations, step: ChunkStep) -> None:
        self._locations, self._step = locations, step
        self._stack = ExitStack()
        self._writer: Any = None
        self._columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
        self._characters = 0

    def add(self, piece: Slice, failures: Mapping[int, Any]) -> None:
        """Write the failed rows of a slice, by their index, in order."""
        for index, failure in sorted(failures.items()):
            row = piece.rows.slice(index, 1).to_pylist()[0]
            original, values_of_row = read_original(piece, index, row)
            key = values_of_row.get(self._step.key) if self._step.key else None
            values = (
                *(self._step.input, int(piece.numbers[index]), None if key is None else str(key)),
                *(failure.reason, failure.message, original),
            )
            for column, value in zip(self._columns.values(), values, strict=True):
                column.append(value)
            self._characters += len(original)
            if len(self._columns["row"]) >= _GROUP_ROWS or self._characters >= _GROUP_CHARACTERS:
                self._write_group()

    def finish(self) -> None:
        """Write the last rows, and let the file appear."""
        self._write_group()
        if self._writer is not None:
            self._writer.close()
        self._stack.close()

    def discard(self, error: BaseException) -> None:
        """Leave nothing of the file."""
        if self._writer is not None:
            self._writer.is_open = False  # or it writes a footer when it is collected, into a closed file
        self._stack.__exit__(type(error), error, error.__traceback__)

    def _write_group(self) -> None:
        if not self._columns["row"]:
            return
        if self._writer is None:
            file = self._locations.resolve(name_errors_part(self._step.output), for_writing=True)
            sink = self._stack.enter_context(file.storage.write(file.path))
            self._writer = parquet.ParquetWriter(sink, SCHEMA, compression="zstd")
        self._writer.write_table(pa.table(self._columns, schema=SCHEMA))
        self._columns = {name: [] for name in SCHEMA.names}
        self._characters = 0


@contextmanager
def open_errors(locations: Locations, step: ChunkStep) -> Iterator[ErrorsWriter]:
    """Open the errors part of a chunk. It appears when the block ends without an exception."""
    writer = ErrorsWriter(locations, step)
    try:
        yield writer
        writer.finish()
    except BaseException as error:
        writer.discard(error)
        raise


def name_errors_part(output: str) -> str:
    """Return the reference of the errors part that belongs to a part: `out:scores/errors/part-00017.parquet`."""
    folder = parent_reference(output)
    name = output.removeprefix(folder).lstrip("/")
    return join_reference(join_reference(folder, ERRORS_FOLDER), f"{name.partition('.')[0]}.parquet")


def read_original(piece: Slice, index: int, row: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return a failed row as a JSON object, or as the text of its record, and the values in it."""
    if piece.records is None:
        return msgspec.json.encode(row, enc_hook=str).decode(), row
    text = piece.records[index].decode("utf-8", "replace")
    values: Any = None
    if piece.header is not None:
        cells = split_cells(text, piece.header.delimiter)
        if len(cells) == len(piece.header.names):
            values = dict(zip(piece.header.names, cells, strict=True))
            text = msgspec.json.encode(values).decode()
    else:
        with suppress(msgspec.DecodeError, RecursionError):
            values = msgspec.json.decode(text)
    return text, {**row, **values} if isinstance(values, dict) else row
