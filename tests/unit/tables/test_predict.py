"""Tables: the predictions of columns, and the rows that have none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression

from headrace.errors import InvalidInput
from headrace_worker.models.loader import LoadedModel
from headrace_worker.tables.predict import predict_table
from tests.support.table_versions import load_version

FRAME = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), columns=["a", "b", "c"])


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    model = LogisticRegression().fit(FRAME, FRAME["a"] > 0)
    return load_version(tmp_path_factory.mktemp("linear"), model, FRAME)


def test_a_table_has_the_predictions_of_its_rows(linear: LoadedModel) -> None:
    result = predict_table(linear, None, pa.Table.from_pandas(FRAME))
    assert result.errors == {}
    assert result.to_json() == linear.predict("predict", FRAME.to_dict("records"))
    assert result.predictions.type == pa.bool_()


def test_the_order_of_columns_and_further_columns_do_not_matter(linear: LoadedModel) -> None:
    table = pa.Table.from_pandas(FRAME[["c", "a", "b"]].assign(key="x"))
    assert predict_table(linear, None, table).to_json() == linear.predict("predict", FRAME.to_dict("records"))


def test_an_invalid_row_has_an_error_and_the_others_their_predictions(linear: LoadedModel) -> None:
    values = pa.array([None, float("inf"), *FRAME["b"][2:]])
    table = pa.Table.from_pandas(FRAME).set_column(1, "b", values)
    result = predict_table(linear, None, table)
    assert {row: (error.reason, error.message) for row, error in result.errors.items()} == {
        0: ("bad input", "feature 'b' must be a number, got a missing value (null or NaN)"),
        1: ("bad input", "feature 'b' is infinite, which JSON cannot express and no model accepts"),
    }
    assert result.to_json() == [None, None, *linear.predict("predict", FRAME[2:].to_dict("records"))]


def test_a_table_that_lacks_a_column_is_refused_as_a_whole(linear: LoadedModel) -> None:
    with pytest.raises(InvalidInput, match=r"lacks a column that model@1 takes: 'c' \(did you mean 'C'\?\)"):
        predict_table(linear, None, pa.Table.from_pandas(FRAME.rename(columns={"c": "C"})))
