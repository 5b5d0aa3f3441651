"""Files in, files out: predict the rows of a CSV or JSON lines file through the queue.

    from headrace import Client
    from headrace.batch import predict_file
    report = predict_file(Client(), "churn", "customers.csv", "predicted.csv")

A row's way: `rows` reads it, `cells` gives it the contract's types, `window` keeps the order, `flight` sends
it and waits, `out` writes it.
"""

from __future__ import annotations

from headrace.batch.blocks import PredictedRow
from headrace.batch.file import BatchReport, predict_file, predict_rows
from headrace.batch.progress import Progress

__all__ = ["BatchReport", "PredictedRow", "Progress", "predict_file", "predict_rows"]
