"""Package a fitted model with its typed table, and load the version. For tests of tables."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.base import BaseEstimator

from headrace.catalog.validation import check_instances
from headrace.wire.message import Job
from headrace_worker import package
from headrace_worker.failures import make_failure
from headrace_worker.models.loader import LoadedModel, load
from headrace_worker.store.store import Store
from headrace_worker.tables.columns import select_columns
from headrace_worker.tables.instances import to_instances
from headrace_worker.tables.predict import predict_table


def load_version(folder: Path, model: Any, table: Any, **options: Any) -> LoadedModel:
    """Package a model as `model` into a store in the folder, and return its newest version."""
    store = folder / "store"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package(model, table, **{"name": "model", "store": store, **options})
    opened = Store(store)
    return load(opened, "model", opened.latest("model"), trust_pickle=True)


class Shown(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """An estimator whose prediction for a row is a text of the values and types that it was given."""

    def fit(self, data: Any, target: Any = None) -> Shown:
        if hasattr(data, "columns"):
            self.feature_names_in_ = np.array(list(data.columns), dtype=object)
        self.n_features_in_ = data.shape[1]
        return self

    def predict(self, data: Any) -> Any:
        if not hasattr(data, "columns"):
            return np.array([f"{data.dtype} {_show(row)}" for row in data])
        columns = [data.iloc[:, number] for number in range(data.shape[1])]
        shown = [[f"{_show_type(column)} {_show(value)}" for value in column] for column in columns]
        return np.array(["; ".join(row) for row in zip(*shown, strict=True)])


def predict_rows_alone(version: LoadedModel, method: str, table: pa.Table) -> list[Any]:
    """Return what jobs of one row each get: a prediction, or the error of the row as `RowError` has it."""
    columns = select_columns(version.contract, table)
    return [_predict_alone(version, method, instance) for instance in to_instances(version.contract, columns)]


def predict_table_alike(version: LoadedModel, method: str, table: pa.Table) -> list[Any]:
    """Return the predictions and errors of a table in the same form."""
    result = predict_table(version, method, table)
    return [
        (result.errors[row].reason, result.errors[row].error, result.errors[row].message)
        if row in result.errors
        else prediction
        for row, prediction in enumerate(result.to_json())
    ]


def _predict_alone(version: LoadedModel, method: str, instance: Any) -> Any:
    job = Job(id="x", model="model", instances=[instance])
    try:
        instances = check_instances(version.contract, [instance])
        with np.errstate(over="ignore"):  # a number may be too large for a 32-bit float
            return version.predict(method, instances)[0]
    except Exception as error:  # noqa: BLE001  # a model may raise any error
        failure = make_failure(error, job)
        message = failure.message.removeprefix("model@1: ").replace("instance 0: ", "")
        return failure.reason, failure.error, message


def _show_type(column: Any) -> str:
    categories = getattr(column.dtype, "categories", None)
    return str(column.dtype) if categories is None else f"{column.dtype} {categories.tolist()}"


def _show(value: Any) -> str:
    return f"{type(value).__name__} {value.tolist() if hasattr(value, 'tolist') else value!r}"
