"""The sizes of the measurements of bulk runs."""

from __future__ import annotations

from typing import NamedTuple


class Sizes(NamedTuple):
    """The size of each measurement."""

    #: Turns of every way.
    rounds: int
    #: Trees of the forest and of the boosting.
    trees: int
    #: Rows of the table of each model. The forest is slow, and has fewer.
    rows: dict[str, int]
    #: Files of a table, and rows of a row group: a chunk of the run.
    files: int
    group_rows: int
    #: Rows of the CSV file.
    csv_rows: int
    #: Rows of the table for one and two pool processes.
    scaling_rows: int
    #: Seconds of single rows without and with a run, and rows of the run's table.
    online_seconds: float
    online_rows: int
    #: How many times the table of the memory measurement is longer than the table of the logistic regression.
    memory_factor: int
    #: Files of the table that is only listed and planned, and rows of each.
    listed_files: int
    listed_rows: int


LONG = Sizes(
    rounds=3,
    trees=100,
    rows={"logistic": 1_000_000, "mixed": 1_000_000, "boosting": 1_000_000, "forest": 250_000},
    files=10,
    group_rows=50_000,
    csv_rows=200_000,
    scaling_rows=250_000,
    online_seconds=20.0,
    online_rows=3_000_000,
    memory_factor=10,
    listed_files=1_000,
    listed_rows=1_000_000,
)
SHORT = Sizes(
    rounds=1,
    trees=5,
    rows={"logistic": 4_000, "mixed": 4_000, "boosting": 4_000, "forest": 2_000},
    files=2,
    group_rows=1_000,
    csv_rows=2_000,
    scaling_rows=4_000,
    online_seconds=1.0,
    online_rows=200_000,
    memory_factor=2,
    listed_files=20,
    listed_rows=2_000,
)
