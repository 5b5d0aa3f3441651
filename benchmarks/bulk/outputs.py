"""The output of a way: the prediction of each row, to be compared with those of another way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from benchmarks.bulk.tables import KEY
from benchmarks.bulk.ways.base import PREDICTION


class WrongOutput(Exception):
    """A way has lost or doubled a row, or predicts something else than the others."""


def read_predictions(folder: Path) -> np.ndarray:
    """Return the predictions of the parts in a folder, in the order of the rows' numbers. Raises WrongOutput."""
    parts = sorted(file for file in folder.iterdir() if file.suffix in {".parquet", ".csv"})
    if not parts:
        raise WrongOutput(f"{folder} has no parts")
    table = pa.concat_tables([_read(file) for file in parts])
    numbers, predictions = (np.asarray(table[name]) for name in (KEY, PREDICTION))
    order = np.argsort(numbers)
    if not np.array_equal(numbers[order], np.arange(len(numbers))):
        raise WrongOutput(f"{folder} has {len(numbers):,} rows, of which {len(set(numbers)):,} differ")
    return predictions[order]


def check_equal(folder: Path, expected: np.ndarray) -> None:
    """Raise WrongOutput unless the predictions in a folder are the expected ones."""
    predictions = read_predictions(folder)
    if len(predictions) != len(expected):
        raise WrongOutput(f"{folder} has {len(predictions):,} rows instead of {len(expected):,}")
    if wrong := int(np.sum(predictions != expected)):
        raise WrongOutput(f"{folder} has {wrong:,} other predictions")


def count_bytes(folder: Path) -> int:
    """Return the bytes of the parts in a folder."""
    return sum(file.stat().st_size for file in folder.iterdir() if file.suffix in {".parquet", ".csv"})


def _read(file: Path) -> pa.Table:
    columns = [KEY, PREDICTION]
    if file.suffix == ".csv":
        return csv.read_csv(file, convert_options=csv.ConvertOptions(include_columns=columns))
    return pq.ParquetFile(file).read(columns)
