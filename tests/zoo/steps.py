"""Steps of pipelines that a person wrote: functions of a frame, which only a pickle holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd


def to_texts(frame: Any) -> Any:
    """Convert a frame to texts: 101 becomes "101", and 101.0 "101.0"."""
    return frame.astype(str)


def to_days(frame: Any) -> Any:
    """Convert datetimes to days since 2026."""
    return frame.apply(
        lambda column: (column - pd.Timestamp("2026-01-01", tz=column.dt.tz)).dt.total_seconds() / 86_400
    )


def to_parts(frame: Any) -> Any:
    """Convert datetimes to weekdays and hours."""
    parts = {f"{name} day": frame[name].dt.dayofweek for name in frame} | {
        f"{name} hour": frame[name].dt.hour for name in frame
    }
    return pd.DataFrame(parts)


def select_texts(frame: Any) -> Any:
    """Select the columns of pandas' own text type, as a notebook of pandas 3 does."""
    texts = frame.select_dtypes("str")
    return np.column_stack(
        [texts == value for value in ("basic", "gold", "team")] or [np.zeros(len(frame))]
    ).astype(float)


def length_of_numbers(frame: Any) -> Any:
    """Return the number of characters of each number."""
    return frame.astype(str).apply(lambda column: column.str.len())


def count_integers(frame: Any) -> Any:
    """Return the sum of the columns of integers, and how many there are."""
    integers = frame.select_dtypes("integer")
    return np.column_stack([integers.sum(axis=1), np.full(len(frame), integers.shape[1])])


def to_ordinals(frame: Any) -> Any:
    """Convert a column of dates to days."""
    return frame.map(lambda day: day.toordinal() - 739_000)


def codes_by_batch(frame: Any) -> Any:
    """Number the values of a call in their order."""
    return frame.assign(plan=frame["plan"].astype("category").cat.codes)


def codes_of_categories(frame: Any) -> Any:
    """Number the values by the categories of the column's type."""
    return frame.assign(size=frame["size"].cat.codes)


def dummies_by_batch(frame: Any) -> Any:
    """Make a column of each value of a call but the first."""
    return pd.get_dummies(frame, columns=["plan"], drop_first=True).reindex(
        columns=["income", "plan_gold", "plan_team"], fill_value=0
    )


def seconds_of(frame: Any) -> Any:
    """Convert durations to seconds."""
    return frame.apply(lambda column: column.dt.total_seconds())
