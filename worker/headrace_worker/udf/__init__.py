"""A version of a model as one callable over tables, for Ray, Dask, Spark, DuckDB, polars and other programs.

    from headrace_worker.udf import Predictor
    score = Predictor("churn@3", key="customer", keep=[])
    scored = score(frame)                                    # the same kind of frame
    dataset.map_batches(score, batch_format="pyarrow")       # Ray Data, as every other engine

No queue, no worker and no Redis take part. The engine brings the machines; the version, its checks and its errors
are those of a worker.

predictor   the callable: columns in, columns with predictions and errors out
pinned      the version that a name stands for, fixed once for all processes
process     the versions loaded in this process, each once
frames      frames of pyarrow, pandas and polars to Arrow, and results into the same kind of frame
cells       a column of pandas whose values have several types, as Arrow
schemas     the columns that the callable returns, for engines that ask first
"""

from headrace_worker.udf.predictor import Predictor

__all__ = ["Predictor"]
