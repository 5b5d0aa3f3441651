"""Predicts the rows of a CSV or JSON lines file through the queue.

from headrace import Client
from headrace.batch import predict_file
report = predict_file(Client(), "churn", "customers.csv", "predicted.csv")

file.py         `predict_file` and `predict_rows`
stream.py       `predict_stream`, for the gateway: rows are written while others still arrive
reader.py       reads and checks the rows of a file
columns.py      maps the columns of a file to the contract's features, and cells to values
forms.py        the form in which rows are sent: Arrow columns, JSON columns, or one after the other
csv_columns.py  converts lines of a CSV to Arrow columns
blocks.py       groups rows into blocks, one for each job, and pairs them with the job's outcome
csv_blocks.py   blocks of lines of a CSV, which are sent in Arrow columns
job_window.py   submits the blocks and waits for them, with a bounded number of jobs under way
writers.py      writes rows with their predictions as CSV or JSON lines
part_file.py    the unfinished output of a run: locked, renamed when complete, removed when its run is dead
checkpoint.py   how far the unfinished output of a run is complete, for a run that goes on from it
progress.py     the progress bar
"""

from __future__ import annotations

from headrace.batch.blocks import PredictedRow
from headrace.batch.file import BatchReport, predict_file, predict_rows
from headrace.batch.progress import Progress

__all__ = ["BatchReport", "PredictedRow", "Progress", "predict_file", "predict_rows"]
