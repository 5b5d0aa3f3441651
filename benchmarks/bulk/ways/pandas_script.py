"""A script with pandas in one process: read a file, predict it, write it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bulk.ways.base import PREDICTION, Run, Task, load, main

#: Rows of a CSV file that are read at a time.
_CSV_ROWS = 10_000


def run(task: Task) -> None:
    """Predict one file after the other."""
    for file in task.input_files():
        target = Path(task.output) / file.name
        if file.suffix == ".csv":
            _run_csv(task, file, target)
        else:
            _run_parquet(task, file, target)


def _run_parquet(task: Task, file: Path, target: Path) -> None:
    import pandas as pd

    frame = pd.read_parquet(file)
    frame[PREDICTION] = load(task.estimator).predict(frame[task.features])
    frame.to_parquet(target)


def _run_csv(task: Task, file: Path, target: Path) -> None:
    import pandas as pd

    for number, frame in enumerate(pd.read_csv(file, chunksize=_CSV_ROWS)):
        frame[PREDICTION] = load(task.estimator).predict(frame[task.features])
        frame.to_csv(target, mode="a", header=number == 0, index=False)


@contextlib.contextmanager
def open_engine(processes: int) -> Iterator[Run]:  # noqa: ARG001  # one process, as in a user's script
    """Yield the function that runs a task in this process."""
    yield run


if __name__ == "__main__":
    main(open_engine, ["pandas", "pyarrow"], "read_parquet, predict, to_parquet; one process")
