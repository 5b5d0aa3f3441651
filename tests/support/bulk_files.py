"""Locations in a folder of a test, chunks of files in them, and a stand-in for a model: `a + 1`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from headrace.wire.bulk import ChunkStep, Receipt
from headrace_worker.bulk.chunks import cut
from headrace_worker.bulk.locations import Locations
from headrace_worker.bulk.ownership import claim_output
from headrace_worker.bulk.part import open_part
from headrace_worker.bulk.read import read_piece
from headrace_worker.bulk.sources import list_sources, name_chunk

SCHEMA = pa.schema([pa.field("a", pa.float64(), nullable=False), pa.field("b", pa.string())])


class RowFailure(msgspec.Struct, frozen=True):
    """The error of a row."""

    reason: str
    message: str


def make_locations(folder: Path) -> Locations:
    """Return the locations `in`, to read, and `out`, to write, in a folder."""
    for name in ("in", "out"):
        (folder / name).mkdir(exist_ok=True)
    return Locations(f"in={folder}/in:r,out={folder}/out:w")


def make_table(rows: int, start: int = 0) -> pa.Table:
    """Return a table with the numbers from `start` on, a text and an id."""
    numbers = range(start, start + rows)
    return pa.table(
        {
            "a": pa.array([float(number) for number in numbers]),
            "b": pa.array([f"text {number}" for number in numbers]),
            "id": pa.array(list(numbers)),
        }
    )


def write_parquet(path: Path, rows: int, group_rows: int = 100) -> None:
    """Write a Parquet file of such a table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(make_table(rows), path, row_group_size=group_rows)


def plan(
    locations: Locations, reference: str, output: str, *, rows: int = 100, run: str = "run", **options: Any
) -> list[ChunkStep]:
    """Return the chunks of all files that a reference names, as the plan job cuts them."""
    claim_output(locations, output, run)
    steps: list[ChunkStep] = []
    for source in list_sources(locations, reference):
        for piece in cut(locations, source, target_rows=rows):
            step = ChunkStep(
                input=source.reference,
                output=name_chunk(output, len(steps), source.reference, options.pop("ending", None)),
                first=piece.first,
                last=piece.last,
                first_row=piece.first_row,
                rows=piece.rows,
                content=source.content,
                run=run,
                chunk=len(steps),
                version="3",
                **options,
            )
            steps.append(step)
    return steps


def predict(locations: Locations, step: ChunkStep, *, bad: frozenset[float] = frozenset()) -> Receipt:
    """Predict a chunk with `a + 1`. A row fails if its `a` is in `bad`, or null."""
    with open_part(locations, step) as part_writer:
        for piece in read_piece(locations, step, SCHEMA):
            values = piece.rows.column("a").to_pylist()
            errors = {
                index: RowFailure("bad input", "a is bad")
                for index, value in enumerate(values)
                if value in bad or value is None
            }
            part_writer.write(piece, pc.add(piece.rows.column("a"), 1.0), errors)
    assert part_writer.receipt is not None
    return part_writer.receipt


def read_parts(folder: Path) -> pa.Table:
    """Return the rows of all Parquet parts of a folder, in the order of their names."""
    return pa.concat_tables([parquet.ParquetFile(path).read() for path in sorted(folder.glob("part-*.parquet"))])


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files below a folder, by their path there."""
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }
