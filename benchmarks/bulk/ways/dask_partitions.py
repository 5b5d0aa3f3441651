"""Dask: `map_partitions` over the row groups of the tables, on a local cluster of processes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from benchmarks.bulk.ways.base import PREDICTION, Run, Task, load, main


def add_predictions(frame: Any, task: Task) -> Any:
    """Return a frame of pandas with the column of its predictions."""
    return frame.assign(**{PREDICTION: load(task.estimator).predict(frame[task.features])})


def run(task: Task) -> None:
    """Predict the tables, a partition for each row group."""
    import dask.dataframe as dd
    from dask.dataframe.utils import make_meta

    frame = dd.read_parquet(task.tables, split_row_groups=True)
    meta = make_meta(frame).assign(**{PREDICTION: 0})
    frame.map_partitions(add_predictions, task, meta=meta).to_parquet(task.output, write_index=False)


@contextlib.contextmanager
def open_engine(processes: int) -> Iterator[Run]:
    """Yield the function that runs a task on a cluster with this number of worker processes."""
    import dask
    from dask.distributed import Client, LocalCluster

    # With Dask's own type of texts, a missing text is pd.NA, which the imputation of scikit-learn does not take.
    dask.config.set({"dataframe.convert-string": False})
    cluster = LocalCluster(n_workers=processes, threads_per_worker=1, dashboard_address=None)
    with cluster, Client(cluster):
        yield run


if __name__ == "__main__":
    settings = "LocalCluster with two workers of one thread; read_parquet(split_row_groups=True), to_parquet"
    main(open_engine, ["dask", "distributed", "pandas", "pyarrow"], settings)
