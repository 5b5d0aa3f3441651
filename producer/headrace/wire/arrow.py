"""Instances as an Arrow IPC stream of one record batch, compressed with zstd, in base64.

A stream from a message may be hostile. So everything that decoding it would take is read from its headers first:
its columns and their types, its rows, and the bytes that its buffers claim to decompress to. Only then the batch
is decoded, and checked as a whole before a value is read. pyarrow is imported where it is used: it is an extra.
"""

from __future__ import annotations

import binascii
import struct
from typing import Any

from headrace.errors import InvalidInput
from headrace.wire.columns import Columns, EncodedColumns, encode_arrow
from headrace.wire.limits import JobLimits

#: The most bytes of a decompressed batch, as a multiple of the most bytes of a job's instances. A number of 18
#: digits takes 8 bytes in a batch, and a missing one a bit.
MAX_RATIO = 8
#: pyarrow's names of the types of columns; lists, dictionaries and extensions are not among them.
_TYPES = frozenset(
    ("null", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float", "double")
) | {"string", "large_string", "date32[day]"}


class ArrowColumns(Columns):
    """Instances in the columns of a pyarrow RecordBatch."""

    def __init__(self, batch: Any, *, named: bool = True) -> None:
        super().__init__(batch.num_rows, named=named)
        self.batch = batch

    @property
    def column_count(self) -> int:
        """The number of columns."""
        return int(self.batch.num_columns)

    def encode(self) -> bytes:
        """Return the instances as they are written in a message."""
        import pyarrow as pa

        sink = pa.BufferOutputStream()
        options = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
        with pa.ipc.new_stream(sink, self.batch.schema, options=options) as writer:
            writer.write_batch(self.batch)
        return encode_arrow(len(self), binascii.b2a_base64(sink.getvalue(), newline=False))

    def select(self, start: int, end: int) -> list[Any]:
        """Return the instances from `start` to `end`, exclusive, one after the other."""
        rows: list[dict[str, Any]] = self.batch.slice(start, end - start).to_pylist()
        return rows if self.named else [list(row.values()) for row in rows]


def decode_columns(columns: EncodedColumns, limits: JobLimits) -> ArrowColumns:
    """Decode the instances of a message. Raises InvalidInput; ImportError without pyarrow."""
    import pyarrow as pa

    try:
        batch = _decode(binascii.a2b_base64(columns.encoded), len(columns), limits)
    except InvalidInput:
        raise
    except (pa.ArrowException, ValueError, LookupError, OSError, EOFError, StopIteration, struct.error) as error:
        raise InvalidInput(
            f"the job's Arrow stream cannot be read ({type(error).__name__}): it is cut, damaged, or no stream of "
            "one record batch"
        ) from None
    except MemoryError:
        raise InvalidInput("the job's Arrow stream takes more memory than the worker has") from None
    return ArrowColumns(batch)


def _decode(stream: bytes, rows: int, limits: JobLimits) -> Any:
    import pyarrow as pa

    reader = pa.ipc.MessageReader.open_stream(pa.py_buffer(stream))
    schema_message, batch_message = reader.read_next_message(), reader.read_next_message()
    if (schema_message.type, batch_message.type) != ("schema", "record batch"):
        raise InvalidInput("the job's Arrow stream is no schema and then a record batch; dictionaries are refused")
    try:
        reader.read_next_message()
    except StopIteration:
        pass
    else:
        raise InvalidInput("the job's Arrow stream holds more than one record batch")
    schema = pa.ipc.read_schema(schema_message)
    _check_schema(schema, rows, limits)
    _check_header(batch_message, rows, limits)
    batch = pa.ipc.read_record_batch(batch_message, schema)
    batch.validate(full=True)  # or an offset may lead outside of its buffer
    if batch.num_rows != rows:
        raise InvalidInput(f"the job's Arrow stream holds {batch.num_rows:,} rows, and the job says {rows:,}")
    return batch


def _check_schema(schema: Any, rows: int, limits: JobLimits) -> None:
    names = schema.names
    if not names or len(set(names)) != len(names):
        raise InvalidInput("the columns of the job's Arrow stream need names, each another one")
    for field in schema:
        kind = str(field.type)
        if kind not in _TYPES and not kind.startswith("timestamp["):
            raise InvalidInput(
                f"column {field.name[:64]!r} of the job's Arrow stream is of type {kind[:64]}; numbers, booleans, "
                "texts, dates and timestamps are accepted"
            )
    if rows * len(names) > limits.max_values:
        raise InvalidInput(
            f"the job's Arrow stream holds {rows:,} rows of {len(names):,} values, more than the "
            f"{limits.max_values:,} of HEADRACE_MAX_JOB_VALUES; send fewer rows in a job"
        )


def _check_header(message: Any, rows: int, limits: JobLimits) -> None:
    """Check the rows of a record batch, and the bytes that its buffers decompress to. Nothing is decompressed."""
    header = _FlatTable.root(bytes(message.metadata)).table(_HEADER)
    claimed = header.integer(_LENGTH)
    if claimed != rows:
        raise InvalidInput(f"the job's Arrow stream holds {claimed:,} rows, and the job says {rows:,}")
    body, size = message.body, 0
    is_compressed = header.position(_COMPRESSION) is not None
    for offset, length in header.pairs(_BUFFERS):
        if not (offset >= 0 and length >= 0 and offset + length <= (body.size if body is not None else 0)):
            raise InvalidInput("a buffer of the job's Arrow stream lies outside of it")
        if is_compressed and length:
            (raw_size,) = struct.unpack("<q", bytes(body[offset : offset + 8]))
            length = length - 8 if raw_size == -1 else raw_size  # noqa: PLW2901  # -1: not compressed after all
            if length < 0:
                raise InvalidInput("a buffer of the job's Arrow stream has a negative size")
        size += length
    if size > MAX_RATIO * limits.max_bytes:
        raise InvalidInput(
            f"the job's Arrow stream decompresses to {size:,} bytes, more than {MAX_RATIO} times "
            f"HEADRACE_MAX_JOB_BYTES ({limits.max_bytes:,}); send fewer rows in a job"
        )


#: Numbers of fields in the tables `Message` and `RecordBatch` of Arrow's format (format/Message.fbs).
_HEADER = 2
_LENGTH, _BUFFERS, _COMPRESSION = 0, 2, 3


class _FlatTable:
    """A table of a FlatBuffer, read field by field. pyarrow has verified it; struct.error stops the rest."""

    def __init__(self, data: bytes, start: int) -> None:
        self._data, self._start = data, start
        self._fields = start - self._unpack("<i", start)

    @classmethod
    def root(cls, data: bytes) -> _FlatTable:
        """Return the outermost table."""
        return cls(data, struct.unpack_from("<I", data, 0)[0])

    def position(self, field: int) -> int | None:
        """Return the position of a field in the buffer; None if the table has it not."""
        slot = 4 + 2 * field
        if slot + 2 > self._unpack("<H", self._fields):
            return None
        offset = self._unpack("<H", self._fields + slot)
        return self._start + offset if offset else None

    def integer(self, field: int) -> int:
        """Return a 64-bit integer; 0, its default, if the table has it not."""
        position = self.position(field)
        return 0 if position is None else self._unpack("<q", position)

    def table(self, field: int) -> _FlatTable:
        """Return the table that a field refers to. Raises LookupError."""
        position = self.position(field)
        if position is None:
            raise LookupError("the header lacks a field")
        return _FlatTable(self._data, position + self._unpack("<I", position))

    def pairs(self, field: int) -> list[tuple[int, int]]:
        """Return a vector of pairs of 64-bit integers."""
        position = self.position(field)
        if position is None:
            return []
        start = position + self._unpack("<I", position)
        count = self._unpack("<I", start)
        if count * 16 > len(self._data):
            raise LookupError("the header is cut")
        numbers = struct.unpack_from(f"<{2 * count}q", self._data, start + 4)
        return list(zip(numbers[::2], numbers[1::2], strict=True))

    def _unpack(self, form: str, position: int) -> int:
        if position < 0:
            raise LookupError("the header is damaged")
        number: int = struct.unpack_from(form, self._data, position)[0]
        return number
