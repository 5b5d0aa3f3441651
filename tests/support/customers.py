"""A table with a column of each type, and a model whose prediction changes with each of its values."""

from __future__ import annotations

import os
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, RegressorMixin

from headrace.catalog.validation import check_instances
from headrace_worker.manifest import Manifest
from headrace_worker.models.loader import load
from headrace_worker.packaging.package import package
from headrace_worker.packaging.table import read_table
from headrace_worker.store.store import Store

#: The features. `customer` is the key of the table and none of them.
FEATURES = ["age", "visits", "income", "member", "newsletter", "plan", "city", "joined", "renewed", "birthday"]
_PLANS = ["free", "gold", "team"]
_CITIES = ["Aachen", "Bonn", "Ulm", "Köln"]


class Fingerprint(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A model whose prediction changes with each value of a row, and with each type of its columns."""

    def fit(self, frame: pd.DataFrame, _target: Any = None) -> Fingerprint:
        self.n_features_in_ = frame.shape[1]
        self.feature_names_in_ = np.asarray(frame.columns, dtype=object)
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if file := os.environ.get("FINGERPRINT_LOADS"):  # into which each process that loads it writes its number
            with Path(file).open("a") as lines:
                lines.write(f"{os.getpid()}\n")

    def predict(self, frame: pd.DataFrame) -> np.ndarray[Any, Any]:
        total = np.zeros(len(frame))
        for number, name in enumerate(frame.columns, start=1):
            column = frame[name]
            # numpy's type of datetimes has a unit, which differs by library and does not change a value.
            kind = "time" if str(column.dtype).startswith("datetime64") else str(column.dtype)
            total += number * (pd.util.hash_array(np.array(column.map(_to_text), dtype=object)) % 1_000)
            total += len(kind) / 100
        return total


def _to_text(value: Any) -> str:
    if value is None or value is pd.NA or value is pd.NaT or value != value:  # noqa: PLR0124  # NaN
        return "missing"
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def customers(rows: int, seed: int = 5) -> pd.DataFrame:
    """Return a table of customers, with missing values in each column that can have them."""
    generator = np.random.default_rng(seed)
    start = pd.Timestamp("2024-01-01")
    seconds = generator.integers(0, 60_000_000, rows)
    joined = pd.Series(start + pd.to_timedelta(seconds, unit="s")).astype("datetime64[us]")
    renewed = joined.dt.tz_localize("UTC") + pd.Timedelta(days=100)
    newsletter = pd.array(generator.random(rows) < 0.4, dtype="boolean")
    newsletter[generator.random(rows) < 0.2] = pd.NA
    plan = pd.Series(pd.Categorical(generator.choice(_PLANS, rows), categories=_PLANS))
    days = generator.integers(0, 16_000, rows).tolist()
    return pd.DataFrame(
        {
            "customer": np.arange(rows, dtype=np.int64) + 7_000_000_000,
            "age": pd.Series(generator.integers(18, 90, rows)).astype(float).mask(generator.random(rows) < 0.1),
            "visits": generator.integers(0, 40, rows),
            "income": pd.Series(generator.normal(40, 9, rows)).mask(generator.random(rows) < 0.1),
            "member": generator.random(rows) < 0.5,
            "newsletter": newsletter,
            "plan": plan.mask(generator.random(rows) < 0.1),
            "city": pd.Series(generator.choice(_CITIES, rows), dtype="str").mask(generator.random(rows) < 0.1),
            "joined": joined.mask(generator.random(rows) < 0.1),
            "renewed": renewed,
            "birthday": [date(1960, 1, 1) + timedelta(days=number) for number in days],
        }
    )


def add_fingerprint(store: Path, name: str = "churn") -> Manifest:
    """Add the model to a store; a process that loads it needs HEADRACE_TRUST_PICKLE and this module."""
    table = customers(120)[FEATURES]
    model = Fingerprint().fit(table)
    return package(Store(store), model, name=name, example=read_table(table), trust_pickle=True)


def predict_rows(store: Path, name: str, table: pd.DataFrame) -> list[Any]:
    """Return the predictions of the path of rows, as a worker predicts jobs, for a table of pandas."""
    loaded = load(Store(store), name, "1", trust_pickle=True)
    rows = [
        {feature: None if pd.isna(value) else value for feature, value in row.items()}
        for row in table[FEATURES].astype(object).to_dict("records")
    ]
    return loaded.predict(loaded.contract.method, check_instances(loaded.contract, rows))
