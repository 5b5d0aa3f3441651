"""Rows for which a model fails, errors that are no row's fault, and how many rows a model is given at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.base import BaseEstimator

from headrace_worker.manifest import Limits
from headrace_worker.models.loader import LoadedModel
from headrace_worker.tables.predict import predict_table
from tests.support.table_versions import load_version

FRAME = pd.DataFrame({"code": np.arange(64.0), "name": ["Ann"] * 64})


class Choosy(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """An estimator that fails for some codes, and counts the rows of its calls."""

    calls: list[int]

    def fit(self, data: Any) -> Choosy:
        self.feature_names_in_, self.n_features_in_ = np.array(list(data.columns), dtype=object), data.shape[1]
        return self

    def predict(self, data: Any) -> Any:
        type(self).calls.append(len(data))
        if (data["code"] == 1000).any():
            raise ValueError(f"no code {data['code'].max():g} of {data['name'].iloc[0]}")
        if (data["code"] == 2000).any():
            raise ConnectionError("the feature store is away")
        if (data["code"] == 3000).any():
            raise MemoryError
        return np.log(data["code"].to_numpy() + 1)


Choosy.calls = []


@pytest.fixture(scope="module")
def choosy(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_version(tmp_path_factory.mktemp("choosy"), Choosy().fit(FRAME), FRAME, trust_pickle=True)


def _table(rows: int, **codes: float) -> pa.Table:
    values = np.arange(float(rows)) % 100
    for row, code in codes.items():
        values[int(row[1:])] = code
    return pa.table({"code": values, "name": ["Ann"] * rows})


def test_a_row_for_which_the_model_fails_is_found_in_few_calls_and_quotes_no_value(choosy: LoadedModel) -> None:
    Choosy.calls.clear()
    result = predict_table(choosy, None, _table(1024, r77=1000))
    (row, error), *others = result.errors.items()
    assert (row, others) == (77, [])
    assert (error.reason, error.error, error.message) == ("permanent", "ValueError", "no code <value> of <value>")
    assert len(Choosy.calls) <= 2 * 10 + 1
    assert result.predictions.null_count == 1
    assert result.to_json()[76] == np.log(77)


def test_rows_too_many_for_the_memory_are_predicted_in_halves(choosy: LoadedModel) -> None:
    result = predict_table(choosy, None, _table(16, r3=3000))
    assert {row: error.error for row, error in result.errors.items()} == {3: "MemoryError"}


def test_an_error_that_is_no_row_s_fault_is_raised(choosy: LoadedModel) -> None:
    with pytest.raises(ConnectionError):
        predict_table(choosy, None, _table(16, r3=2000))


def test_a_number_that_json_lacks_is_null_and_no_error(choosy: LoadedModel) -> None:
    with np.errstate(divide="ignore"):
        result = predict_table(choosy, None, _table(4, r2=-1))
    assert (result.to_json()[2], result.errors) == (None, {})


def test_a_large_table_is_predicted_in_slices_whose_rows_keep_their_numbers(choosy: LoadedModel) -> None:
    Choosy.calls.clear()
    result = predict_table(choosy, None, _table(150_000, r149000=float("nan"), r70000=1000))
    assert list(result.errors) == [70000, 149000]
    assert max(Choosy.calls) == 65_536
    assert len(result.predictions) == 150_000


@pytest.mark.parametrize(
    ("limits", "calls"),
    [(Limits(alone=True), [1] * 5), (Limits(max_batch_instances=2), [2, 2, 1]), (Limits(), [5])],
    ids=["alone", "a small limit", "the default limit"],
)
def test_limits_of_the_version_decide_the_rows_of_a_call(limits: Limits, calls: list[int], tmp_path: Path) -> None:
    version = load_version(tmp_path, Choosy().fit(FRAME), FRAME, trust_pickle=True, limits=limits)
    Choosy.calls.clear()
    assert predict_table(version, None, _table(5)).errors == {}
    assert Choosy.calls == calls
