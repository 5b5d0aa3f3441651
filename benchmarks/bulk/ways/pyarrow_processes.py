"""Processes with pyarrow, one thread each: read a piece, predict it, write it. The limit of every other way."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
from collections.abc import Iterator
from functools import partial
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

from benchmarks.bulk.ways.base import Run, Task, main, with_predictions


def run(pool: Pool, processes: int, task: Task) -> None:
    """Predict the row groups of Parquet files, or a range of each CSV file for each process."""
    files = task.input_files()
    if files[0].suffix == ".csv":
        pieces = [(task, file, *bounds) for file in files for bounds in _cut_csv(file, processes)]
        _drain(pool.imap_unordered(_predict_range, pieces))
    else:
        groups = [(task, file, group) for file in files for group in range(_count_groups(file))]
        _drain(pool.imap_unordered(_predict_group, groups))


def _drain(results: Iterator[None]) -> None:
    for _ in results:
        pass


def _count_groups(file: Path) -> int:
    import pyarrow.parquet as pq

    return int(pq.ParquetFile(file).num_row_groups)


def _predict_group(piece: tuple[Task, Path, int]) -> None:
    import pyarrow.parquet as pq

    task, file, group = piece
    with pq.ParquetFile(file) as source:
        table = source.read_row_group(group, use_threads=False)
    pq.write_table(with_predictions(task, table), Path(task.output) / f"{file.stem}-{group:05}.parquet")


def _cut_csv(file: Path, count: int) -> list[tuple[list[str], int, int]]:
    """Return the header's columns, and the first and the last byte of each of `count` ranges of whole lines."""
    with file.open("rb") as source:
        columns = [name.strip('"') for name in source.readline().decode().rstrip("\r\n").split(",")]
        bounds = [source.tell()]
        size = file.stat().st_size
        for number in range(1, count):
            source.seek(size * number // count)
            source.readline()
            bounds.append(source.tell())
    return [(columns, first, last) for first, last in zip(bounds, [*bounds[1:], size], strict=True)]


def _predict_range(piece: tuple[Task, Path, list[str], int, int]) -> None:
    from pyarrow import csv

    task, file, columns, first, last = piece
    with file.open("rb") as source:
        source.seek(first)
        data = source.read(last - first)
    options: dict[str, Any] = {
        "read_options": csv.ReadOptions(use_threads=False, column_names=columns),
    }
    target = Path(task.output) / f"{file.stem}-{first}.csv"
    table = csv.read_csv(io.BytesIO(data), **options)
    csv.write_csv(with_predictions(task, table), target)


def _use_one_thread() -> None:
    import pyarrow as pa

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)


@contextlib.contextmanager
def open_engine(processes: int) -> Iterator[Run]:
    """Yield the function that runs a task in the processes of a pool."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, initializer=_use_one_thread) as pool:
        yield partial(run, pool, processes)


if __name__ == "__main__":
    main(open_engine, ["pyarrow"], "a row group at a time in each of two processes; one thread each; no check")
