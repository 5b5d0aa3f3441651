"""The tables, written from fixed seeds: a key, 30 numbers; and a key, numbers and texts with missing values."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

#: The column that identifies a row: its number in the whole table.
KEY = "id"
NUMBERS = [f"f{number:02}" for number in range(30)]
_MIXED_NUMBERS = [f"n{number}" for number in range(8)]
_TEXTS = {
    "region": ["north", "east", "south", "west"],
    "plan": ["free", "basic", "team", "business", "enterprise"],
    "channel": ["web", "phone", "shop"],
}
MIXED = [*_MIXED_NUMBERS, *_TEXTS]
#: The columns of a kind of table.
FEATURES = {"numbers": NUMBERS, "mixed": MIXED}
#: The share of missing values in the columns of a mixed table.
_MISSING = 0.05


def make_table(kind: str, rows: int, first: int = 0) -> pa.Table:
    """Return a table of a kind; `first` is the number of its first row, and its seed."""
    rng = np.random.default_rng([7, first])
    columns: dict[str, pa.Array] = {KEY: pa.array(np.arange(first, first + rows))}
    for name in NUMBERS if kind == "numbers" else _MIXED_NUMBERS:
        columns[name] = pa.array(rng.normal(size=rows), mask=_mask(kind, rng, rows))
    if kind == "mixed":
        for name, words in _TEXTS.items():
            codes = pa.array(rng.integers(0, len(words), rows), mask=_mask(kind, rng, rows))
            columns[name] = pa.array(words).take(codes)
    return pa.table(columns)


def _mask(kind: str, rng: np.random.Generator, rows: int) -> np.ndarray | None:
    return rng.random(rows) < _MISSING if kind == "mixed" else None


def write_parquet(folder: Path, kind: str, rows: int, *, files: int, group_rows: int) -> Path:
    """Write a table as Parquet files into a new folder; return it."""
    folder.mkdir(parents=True)
    for number, (first, count) in enumerate(_split(rows, files)):
        table = make_table(kind, count, first)
        pq.write_table(table, folder / f"{number:04}.parquet", row_group_size=group_rows)
    return folder


def write_csv(folder: Path, kind: str, rows: int) -> Path:
    """Write a table as one CSV file into a new folder; return the folder."""
    folder.mkdir(parents=True)
    csv.write_csv(make_table(kind, rows), folder / "table.csv", csv.WriteOptions(quoting_style="none"))
    return folder


def link_repeatedly(source: Path, folder: Path, times: int) -> Path:
    """Fill a new folder with links to the files of another, each file several times under other names."""
    folder.mkdir(parents=True)
    for repeat in range(times):
        for file in sorted(source.iterdir()):
            os.link(file, folder / f"{repeat:05}-{file.name}")
    return folder


def _split(rows: int, files: int) -> Iterator[tuple[int, int]]:
    """Yield the first row and the rows of each file."""
    bounds = [rows * number // files for number in range(files + 1)]
    for first, last in itertools.pairwise(bounds):
        yield first, last - first
