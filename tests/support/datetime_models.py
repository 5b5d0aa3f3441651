"""A model of datetimes, in a module that workers can import."""

from __future__ import annotations

import pandas as pd
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer

TABLE = pd.DataFrame(
    {
        "paid": pd.date_range("2025-10-25T20:30", periods=40, freq="h", tz="UTC").tz_convert("Europe/Berlin"),
        "started": pd.date_range("2025-10-01", periods=40, freq="7h"),
    }
)


def read_hours(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"paid": frame["paid"].dt.hour, "started": frame["started"].dt.hour})


def fit() -> Pipeline:
    """Fit a model that predicts the hour of payment in Berlin, and 100 times the hour of the start."""
    hours = read_hours(TABLE)
    return make_pipeline(FunctionTransformer(read_hours), LinearRegression()).fit(
        TABLE, hours["paid"] + 100 * hours["started"]
    )
