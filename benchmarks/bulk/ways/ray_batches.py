"""Ray Data: `map_batches` over the tables, on a local Ray with a CPU for each process."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from benchmarks.bulk.ways.base import Run, Task, main, with_predictions


def add_predictions(table: Any, task: Task) -> Any:
    """Return an Arrow table with the column of its predictions."""
    return with_predictions(task, table)


def run(task: Task) -> None:
    """Predict the tables. Ray joins reading, predicting and writing in one task of each block."""
    import ray

    dataset = ray.data.read_parquet(task.tables)
    options: dict[str, Any] = {"batch_format": "pyarrow", "batch_size": None, "zero_copy_batch": True}
    dataset.map_batches(add_predictions, fn_kwargs={"task": task}, **options).write_parquet(task.output)


@contextlib.contextmanager
def open_engine(processes: int) -> Iterator[Run]:
    """Yield the function that runs a task on a Ray of this machine."""
    import ray

    ray.init(num_cpus=processes, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # The newer reader is slower here: it joins reading with no other step.
    context.use_datasource_v2 = False
    try:
        yield run
    finally:
        ray.shutdown()


if __name__ == "__main__":
    settings = "ray.init(num_cpus=2); read_parquet, map_batches(batch_size=None, pyarrow), write_parquet"
    main(open_engine, ["ray", "pyarrow"], settings)
