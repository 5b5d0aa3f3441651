"""Package an estimator into a store, and compare the loaded version with it. For tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io

from headrace.catalog.validation import check_instances
from headrace_worker.manifest import Manifest
from headrace_worker.models.loader import load
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store


class Rule:
    """A model that has `predict` and is no estimator of scikit-learn."""

    def predict(self, rows: Any) -> Any:
        return np.asarray(rows)[:, 0] > 1


def add_model(folder: Path, estimator: Any, instances: Any, **options: Any) -> Manifest:
    """Package an estimator with an example into the store `folder`/store, as the next version of `model`."""
    file, example = folder / "model.skops", folder / "example.json"
    skops.io.dump(estimator, file)
    example.write_text(json.dumps(instances))
    return package(Store(folder / "store"), file, name="model", example=example, **options)


def to_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Convert a frame to instances, with None for missing values."""
    return [
        {name: None if pd.isna(value) else value for name, value in row.items()}
        for row in table.astype(object).to_dict("records")
    ]


def _to_lists(output: Any) -> Any:
    if isinstance(output, list):  # one array for each output
        return [list(row) for row in zip(*map(_to_lists, output), strict=True)]
    if hasattr(output, "toarray"):
        return [
            {"indices": np.flatnonzero(row).tolist(), "values": row[row != 0].tolist()} for row in output.toarray()
        ]
    return np.asarray(output).tolist()


def assert_predicts_as(estimator: Any, data: Any, folder: Path, instances: Any) -> None:
    """Compare all methods of the loaded version with the estimator's for `data`, for one row and for all."""
    loaded = load(Store(folder / "store"), "model", "1")
    checked = check_instances(loaded.contract, instances)
    for method in loaded.manifest.methods:
        with np.errstate(divide="ignore"):  # the logarithm of a probability of 0
            expected = _to_lists(getattr(estimator, method)(data))
        predictions = loaded.predict(method, checked)
        json.dumps(predictions, allow_nan=False)
        assert len(predictions) == len(instances)
        _assert_equal(predictions, expected)
        _assert_equal(loaded.predict(method, checked[:1]), expected[:1])


def _assert_equal(actual: Any, expected: Any) -> None:
    if isinstance(expected, list):
        assert isinstance(actual, list)
        assert len(actual) == len(expected)
        for actual_item, expected_item in zip(actual, expected, strict=True):
            _assert_equal(actual_item, expected_item)
    elif isinstance(expected, dict):
        assert actual.keys() == expected.keys()
        _assert_equal(list(actual.values()), list(expected.values()))
    elif isinstance(expected, float) and not np.isfinite(expected):
        assert actual is None
    elif isinstance(expected, float):
        assert actual == pytest.approx(expected, rel=1e-9, abs=1e-12)
    else:
        assert actual == expected
        assert type(actual) is type(expected)
