"""Read the predictions that the original model gave for the example, to compare the version with them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

from headrace.catalog.contract import Named
from headrace.errors import ModelError
from headrace.text import did_you_mean
from headrace_worker.packaging.example import read_example
from headrace_worker.packaging.table import Table

#: Takes the place of an estimator when predictions are read: one column of CSV holds numbers if they all are.
_ESTIMATOR_OF_NUMBERS = SimpleNamespace(n_features_in_=1)


def split_expected(table: Table, expected: Path | str | None) -> tuple[Table, list[Any] | None]:
    """Return the table and the expected predictions of its rows; None if there are none.

    `expected` is a file, or the name of a column, which the table then loses. A file holds a prediction for each
    row: one column of CSV or Parquet, or a list of JSON. Raises ModelError.
    """
    if expected is None:
        return table, None
    if isinstance(expected, Path):
        return table, _read_predictions(expected)
    names = list(table.instances[0]) if isinstance(table.instances[0], dict) else []
    if expected not in names:
        raise ModelError(f"the example has no column {expected!r} of predictions{did_you_mean(expected, names)}")
    predictions = [instance.get(expected) for instance in table.instances]
    instances = [
        {name: value for name, value in instance.items() if name != expected} for instance in table.instances
    ]
    schema = table.schema
    if isinstance(schema, Named):
        schema = Named(features=tuple(feature for feature in schema.features if feature.name != expected))
    return Table(instances, schema), predictions


def _read_predictions(path: Path) -> list[Any]:
    predictions = read_example(path, _ESTIMATOR_OF_NUMBERS).instances
    if all(isinstance(row, dict) and len(row) == 1 for row in predictions):
        return [value for row in predictions for value in row.values()]
    if all(isinstance(row, dict) for row in predictions):  # a column for each class or output
        return [list(row.values()) for row in predictions]
    return msgspec.convert(predictions, list[Any])
