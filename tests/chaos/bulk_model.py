"""A model of bulk runs: it records each call, takes a while, and kills its process where a row says so.

The columns are `number`, which identifies a row, and `deed`: 0, or the number of a signal for the process. The
prediction is the double of the number, plus one.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, RegressorMixin

from headrace_worker.manifest import Limits
from headrace_worker.packaging.package import package
from headrace_worker.packaging.table import read_table
from headrace_worker.store.store import Store

#: The name of the model, its columns, and the column of the table that identifies a row.
MODEL = "bulky"
NUMBER, DEED = "number", "deed"
KEY = "key"

#: Environment variables: the file of recorded calls, and the seconds that a call takes.
CALLS_VARIABLE, SECONDS_VARIABLE = "CHAOS_BULK_CALLS", "CHAOS_BULK_SECONDS"


class Call(NamedTuple):
    """A call of the model: the process, the monotonic time of its start, the first row's number, the rows."""

    pid: int
    started_at: float
    first: int
    rows: int


class TableEstimator(RegressorMixin, BaseEstimator):
    """The estimator of the model."""

    def fit(self, frame: Any, _: Any = None) -> TableEstimator:
        self.n_features_in_ = frame.shape[1]
        self.feature_names_in_ = np.array(frame.columns, dtype=object)
        return self

    def predict(self, frame: Any) -> Any:
        numbers, deeds = frame[NUMBER].to_numpy(), frame[DEED].to_numpy()
        _record(numbers)
        time.sleep(float(os.environ.get(SECONDS_VARIABLE, "0")))
        for deed in deeds[deeds != 0]:
            os.kill(os.getpid(), int(deed))
        return predict_numbers(numbers)


def predict_numbers(numbers: Any) -> Any:
    """Return the predictions of rows with these numbers."""
    return 2.0 * numbers + 1


def _record(numbers: Any) -> None:
    # A single write to a file opened for appending: calls of several processes do not mix, and a kill loses none.
    line = f"{os.getpid()} {time.monotonic()} {int(numbers[0])} {len(numbers)}\n"
    file = os.open(os.environ.get(CALLS_VARIABLE, os.devnull), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def read_calls(file: Path) -> list[Call]:
    """Return the recorded calls, without those for the example, whose numbers are negative."""
    if not file.exists():
        return []
    complete, _, _ = file.read_text().rpartition("\n")
    calls = []
    for line in complete.splitlines():
        pid, started_at, first, rows = line.split()
        calls.append(Call(int(pid), float(started_at), int(first), int(rows)))
    return [call for call in calls if call.first >= 0]


def add_model(store: Path) -> None:
    """Package the model into a store."""
    frame = pd.DataFrame({NUMBER: [-1.0, -2.0], DEED: [0, 0]})
    limits, estimator = Limits(max_attempts=3), TableEstimator().fit(frame)
    options = {"method": "predict", "trust_pickle": True, "limits": limits}
    package(Store(store), estimator, name=MODEL, example=read_table(frame), **options)
