"""Files of rows: read by a client in two ways that must agree, and by a worker in a bulk run."""

from __future__ import annotations

import gzip
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.batch.file import read_blocks
from headrace.batch.reader import Format, read_table
from headrace.catalog.validation import check_instances
from headrace.errors import HeadraceError, InvalidInput
from headrace.wire.arrow import ArrowColumns
from headrace.wire.bulk import ChunkStep
from headrace_worker.bulk.locations import Locations
from headrace_worker.bulk.read import read_piece
from headrace_worker.tables.schema import contract_schema
from tests.fuzz import corpus
from tests.fuzz.child import in_child
from tests.fuzz.mutations import mutate
from tests.fuzz.packed import mutate_gzip, mutate_zstd, zstd
from tests.fuzz.target import Target


def batch_targets() -> list[Target]:
    """Return a target for each format of a file, for clients and for workers."""
    files = corpus.files()
    csv, jsonl = files["csv"], files["jsonl"]
    return [
        *(
            Target(name=f"a {form} file", inputs=inputs, run=_reader_of(form), count=1_500)
            for form, inputs in files.items()
        ),
        Target(name="a csv file in columns", inputs=csv, run=_compare_ways, count=1_500),
        *(
            Target(name=f"a bulk {form} file", inputs=inputs, run=run, count=1_000, mutate=mutator)
            for form, inputs, run, mutator in (
                ("csv", csv, _piece_reader("csv"), mutate),
                ("jsonl", jsonl, _piece_reader("jsonl"), mutate),
                ("csv.gz", [gzip.compress(data, mtime=0) for data in csv], _piece_reader("csv.gz"), mutate_gzip),
                ("jsonl.zst", [zstd(data) for data in jsonl], _piece_reader("jsonl.zst"), mutate_zstd),
                ("parquet", _parquet_files(), in_child(_piece_reader("parquet")), mutate),
            )
        ),
    ]


def _reader_of(form: str) -> Callable[[bytes], None]:
    file_format: Format = "csv" if form == "csv" else "jsonl"

    def read(data: bytes) -> None:
        try:
            table = read_table(io.BytesIO(data), file_format, corpus.TABLE_CONTRACT, name="rows")
            for row in table.rows:
                if row.error is None:
                    msgspec.json.encode(check_instances(corpus.TABLE_CONTRACT, [row.instance]))
        except HeadraceError as error:
            str(error).encode()

    return read


def _compare_ways(data: bytes) -> None:
    """Read a CSV row by row and in columns: both give the same rows, or both refuse the file."""
    by_row, row_error = _read(data, "rows")
    in_columns, column_error = _read(data, "arrow")
    # In columns, an error may be found before the rows in front of it are read.
    common = min(len(by_row), len(in_columns)) if row_error else None
    if row_error != column_error or by_row[:common] != in_columns[:common]:
        raise AssertionError(f"row by row: {by_row[:5]} {row_error}; in columns: {in_columns[:5]} {column_error}")


def _read(data: bytes, form: Any) -> tuple[list[str], str]:
    """Return the valid instances as texts, and the error that ends the file."""
    rows: list[str] = []
    ending = ""
    try:
        table = read_table(io.BytesIO(data), "csv", corpus.TABLE_CONTRACT, name="rows")
        for block in read_blocks(table, corpus.TABLE_CONTRACT, table.rows, None, form):
            if block is not None:
                rows += _list_rows(block)
    except InvalidInput as error:
        ending = str(error)
    return rows, ending


def _list_rows(block: Any) -> list[str]:
    instances = block.instances
    if isinstance(instances, ArrowColumns):
        names = instances.batch.schema.names
        values = [tuple(row[name] for name in names) for row in instances.batch.to_pylist()]
    else:
        names = [feature.name for feature in corpus.TABLE_CONTRACT.input.features]  # type: ignore[union-attr]
        values = [tuple(instance[name] for name in names) for instance in instances]
    return [repr(value) for value in values]


def _piece_reader(form: str) -> Callable[[bytes], None]:
    folder = Path(tempfile.gettempdir()) / "headrace-fuzz-bulk"
    schema = contract_schema(corpus.TABLE_CONTRACT)

    def read(data: bytes) -> None:
        folder.mkdir(exist_ok=True)
        (folder / f"rows.{form}").write_bytes(data)
        locations = Locations(f"in={folder}:r")
        # Another ending of the output reads all columns, not those of the contract alone.
        for output in (f"in:out.{form}", "in:out.parquet"):
            step = ChunkStep(input=f"in:rows.{form}", output=output)
            try:
                rows = 0
                for piece in read_piece(locations, step, schema):
                    assert piece.first == rows, f"a slice begins at row {piece.first}, not {rows}"
                    assert len(piece.numbers) == piece.rows.num_rows, "a slice has another number of lines"
                    piece.rows.validate(full=True)
                    rows += piece.rows.num_rows
            except InvalidInput as error:
                str(error).encode()

    return read


def _parquet_files() -> list[bytes]:
    row = {"age": 41.5, "visits": 3, "member": True, "city": "Bern", "plan": "gold"}
    table = pa.Table.from_pylist([row] * 3)
    files = []
    for options in ({}, {"compression": "gzip", "row_group_size": 1}, {"compression": "none"}):
        buffer = io.BytesIO()
        pq.write_table(table, buffer, store_schema=False, write_statistics=False, **options)  # type: ignore[arg-type]
        files.append(buffer.getvalue())
    return files
