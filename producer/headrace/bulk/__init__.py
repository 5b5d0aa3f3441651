"""Bulk runs, as a client submits, reads and steers them. Workers carry them out.

specification   from a caller's arguments to a `Run`
operations      submit, read, list, cancel and resume runs, and read why rows failed
explain         what a run waits for
wait            the decisions of a wait for its end
progress        the hash of a run, decoded
scripts         the scripts of these operations
"""

from __future__ import annotations

from headrace.bulk.operations import cancel_run, failures_of, list_runs, read_run, resume_run, submit_run
from headrace.bulk.progress import ChunkFailure, RunFailures
from headrace.bulk.specification import make_run

__all__ = [
    "ChunkFailure",
    "RunFailures",
    "cancel_run",
    "failures_of",
    "list_runs",
    "make_run",
    "read_run",
    "resume_run",
    "submit_run",
]
