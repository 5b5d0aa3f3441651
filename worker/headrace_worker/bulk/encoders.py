"""Encode the rows of a part: Parquet, CSV or JSON lines."""

from __future__ import annotations

from typing import Any, BinaryIO, NamedTuple, Protocol

import msgspec
import pyarrow as pa
from pyarrow import parquet

from headrace.wire.bulk import ChunkStep
from headrace_worker.bulk.columns import ERROR, PREDICTION, output_columns
from headrace_worker.bulk.receipts import METADATA_KEY, PartReceipt
from headrace_worker.bulk.slices import Slice

#: The rows and the bytes at which a row group is written.
_GROUP_ROWS, _GROUP_BYTES = 100_000, 64 * 1024**2


class PartRows(NamedTuple):
    """The rows of a slice, and what the output adds to them."""

    slice: Slice
    #: The predictions as a pyarrow Array; null for rows that failed.
    predictions: Any
    #: The messages of their errors as a pyarrow Array of strings; null for other rows.
    errors: Any


class Encoder(Protocol):
    """Writes the rows of a part to its file."""

    def add(self, rows: PartRows) -> None:
        """Write rows, or buffer them."""
        ...

    def finish(self, receipt: PartReceipt) -> None:
        """Write what is buffered, and the receipt where the format has room for it."""
        ...


class ParquetEncoder:
    """Writes Parquet: the columns that are kept, `prediction` and `error`, in row groups of 100,000 rows."""

    def __init__(self, sink: BinaryIO, step: ChunkStep) -> None:
        self._sink, self._step = sink, step
        self._writer: Any = None
        self._schema: Any = None
        self._buffer: list[Any] = []
        self._rows = self._bytes = 0

    def add(self, rows: PartRows) -> None:
        """Buffer rows, and write them when they make a row group."""
        batch = rows.slice.rows
        names = output_columns(batch, self._step)
        arrays = [*(batch.column(name) for name in names), rows.predictions, rows.errors]
        table = pa.Table.from_arrays(arrays, names=[*names, PREDICTION, ERROR])
        if self._schema is None:
            self._schema = table.schema
        elif table.schema != self._schema:
            table = table.cast(self._schema)
        self._buffer.append(table)
        self._rows += table.num_rows
        self._bytes += table.nbytes
        if self._rows >= _GROUP_ROWS or self._bytes >= _GROUP_BYTES:
            self._write_group()

    def finish(self, receipt: PartReceipt) -> None:
        """Write the last row group and the footer with the receipt."""
        if self._schema is None:
            self._schema = pa.schema([(PREDICTION, pa.null()), (ERROR, pa.string())])
        self._write_group()
        self._writer.add_key_value_metadata({METADATA_KEY: msgspec.json.encode(receipt)})
        self._writer.close()

    def close(self) -> None:
        """Leave an unfinished file as it is."""
        if self._writer is not None:
            self._writer.is_open = False  # or it writes a footer when it is collected, into a closed file

    def _write_group(self) -> None:
        if self._writer is None:
            # A dictionary of numbers that are all different is work for nothing.
            texts = [field.name for field in self._schema if not pa.types.is_primitive(field.type)]
            self._writer = parquet.ParquetWriter(
                self._sink, self._schema, compression="zstd", compression_level=1, use_dictionary=texts
            )
        if self._buffer:
            table = pa.concat_tables(self._buffer)
            self._writer.write_table(table, row_group_size=table.num_rows)
        self._buffer, self._rows, self._bytes = [], 0, 0
