"""Open a Parquet file: its content is the one that was planned, and its footer is within the limits."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import pyarrow as pa
from pyarrow import parquet

from headrace.errors import InvalidInput
from headrace_worker.bulk import limits
from headrace_worker.bulk.locations import File
from headrace_worker.bulk.opening import open_unchanged
from headrace_worker.bulk.storage import storage_error

_MAGIC = b"PAR1"


@contextmanager
def open_parquet(file: File, content: str | None) -> Iterator[Any]:
    """Open a Parquet file as a `pyarrow.parquet.ParquetFile`. `content` identifies it; None: unchecked.

    Raises InvalidInput if the content is another, or becomes another until the block ends, and for a file that is
    no Parquet file or exceeds a limit.
    """
    with open_unchanged(file, content) as (opened, facts):
        _check_footer(opened, facts.size, file.reference)
        try:
            reader = parquet.ParquetFile(opened, pre_buffer=False, buffer_size=limits.READ_BYTES)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise damaged(file, error) from None
        check_metadata(reader.metadata, file.reference)
        yield reader


def damaged(file: File, error: Exception) -> Exception:
    """Return the error to raise for an error of pyarrow: the file is damaged, unless the storage failed."""
    if isinstance(error, OSError) and error.errno is not None:
        return storage_error(file.reference, error)
    text = " ".join(str(error).split())[:200]
    return InvalidInput(f"{file.reference} cannot be read as Parquet, it is damaged: {text}")


def check_metadata(metadata: Any, reference: str) -> None:
    """Raise InvalidInput if a footer describes more than the limits allow."""
    if metadata.num_columns > limits.MAX_COLUMNS:
        raise InvalidInput(
            f"{reference} has {metadata.num_columns:,} columns, and a table may have {limits.MAX_COLUMNS:,}"
        )
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        columns = [group.column(number) for number in range(group.num_columns)]
        size = sum(column.total_uncompressed_size for column in columns)
        compressed = sum(column.total_compressed_size for column in columns)
        if group.num_rows < 0 or min((column.total_compressed_size for column in columns), default=0) < 0:
            raise InvalidInput(f"{reference} is damaged: its footer has negative sizes")
        if size > limits.MAX_GROUP_BYTES:
            raise InvalidInput(
                f"{reference}: row group {index} has {size:,} bytes, and {limits.MAX_GROUP_BYTES:,} are allowed; "
                "write smaller row groups"
            )
        if size > limits.SLICE_BYTES and size > limits.MAX_RATIO * max(compressed, 1):
            raise InvalidInput(
                f"{reference}: row group {index} expands {size // max(compressed, 1)} times, and "
                f"{limits.MAX_RATIO} times are allowed"
            )


def slice_rows(metadata: Any) -> int:
    """Return the rows of a slice of a file: fewer if its rows are large."""
    rows: int = max(1, metadata.num_rows)
    size: int = sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
    return max(1, min(limits.SLICE_ROWS, limits.SLICE_BYTES * rows // max(size, 1)))


def _check_footer(opened: BinaryIO, size: int, reference: str) -> None:
    try:
        opened.seek(max(0, size - 8))
        tail = opened.read(8)
        opened.seek(0)
    except OSError as error:
        raise storage_error(reference, error) from None
    if len(tail) < 8 or tail[4:] != _MAGIC:
        raise InvalidInput(f"{reference} is no Parquet file, or its end is missing")
    footer = struct.unpack("<I", tail[:4])[0]
    if footer > limits.MAX_FOOTER_BYTES:
        raise InvalidInput(
            f"{reference} has a footer of {footer:,} bytes, and {limits.MAX_FOOTER_BYTES:,} are allowed"
        )
