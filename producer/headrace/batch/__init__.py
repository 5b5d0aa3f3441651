"""Predicts the rows of a CSV or JSON lines file through the queue.

from headrace import Client
from headrace.batch import predict_file
report = predict_file(Client(), "churn", "customers.csv", "predicted.csv")

file.py         `predict_file` and `predict_rows`
reader.py       reads and checks the rows of a file
columns.py      maps the columns of a file to the contract's features, and cells to values
blocks.py       groups rows into blocks, one for each job, and pairs them with the job's outcome
job_window.py   submits the blocks and waits for them, with a bounded number of jobs under way
writers.py      writes rows with their predictions as CSV or JSON lines
part_file.py    the unfinished output of a run: locked, renamed when complete, removed when its run is dead
progress.py     the progress bar
"""

from __future__ import annotations

from headrace.batch.blocks import PredictedRow
from headrace.batch.file import BatchReport, predict_file, predict_rows
from headrace.batch.progress import Progress

__all__ = ["BatchReport", "PredictedRow", "Progress", "predict_file", "predict_rows"]
