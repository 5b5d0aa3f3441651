"""Tables by each runtime, with predictions of each form: as jobs of one row get them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from headrace_worker.parity import compare_predictions
from tests.support.table_versions import load_version, predict_rows_alone, predict_table_alike

_RANDOM = np.random.default_rng(3)
NUMBERS = pd.DataFrame(_RANDOM.normal(size=(80, 4)), columns=list("abcd"))
MIXED = NUMBERS.assign(plan=_RANDOM.choice(["basic", "gold"], 80), age=_RANDOM.integers(18, 90, 80))
_TWO, _THREE = NUMBERS["a"] > 0, np.digitize(NUMBERS["a"], [-0.5, 0.5])
_LABELS = np.array(["no", "maybe", "yes"])[_THREE]
_TEXTS = [f"{'great' if row % 2 else 'poor'} offer {row % 5}" for row in range(80)]


def _mixed_steps(last: Any) -> Any:
    columns = make_column_transformer((StandardScaler(), ["a", "b", "age"]), (OneHotEncoder(), ["plan"]))
    return make_pipeline(columns, last)


_Fits = Callable[[], tuple[Any, Any, dict[str, Any]]]
_CASES: dict[str, _Fits] = {
    "sklearn: labels of texts": lambda: (
        LogisticRegression().fit(NUMBERS, _LABELS), NUMBERS, {"runtime": "sklearn"}
    ),
    "sklearn: a mixed pipeline": lambda: (
        _mixed_steps(LogisticRegression()).fit(MIXED, _THREE), MIXED, {"runtime": "sklearn"}
    ),
    "sklearn: a forest": lambda: (
        RandomForestClassifier(10, random_state=0).fit(NUMBERS, _TWO), NUMBERS, {"runtime": "sklearn"}
    ),
    "sklearn: several outputs of several types": lambda: (
        KNeighborsClassifier().fit(NUMBERS, np.column_stack([_THREE, _TWO])), NUMBERS, {"runtime": "sklearn"}
    ),
    "sklearn: sparse answers": lambda: (OneHotEncoder().fit(MIXED[["plan"]]), MIXED[["plan"]], {}),
    "sklearn: texts": lambda: (
        make_pipeline(CountVectorizer(), LogisticRegression()).fit(_TEXTS, _TWO), _TEXTS, {"runtime": "sklearn"}
    ),
    "sklearn: objects": lambda: (
        make_pipeline(DictVectorizer(), LogisticRegression()).fit(MIXED.to_dict("records"), _TWO),
        MIXED.to_dict("records"), {"runtime": "sklearn"},
    ),
    "treelite: a forest": lambda: (
        RandomForestRegressor(10, random_state=0).fit(NUMBERS, NUMBERS["a"]), NUMBERS, {"runtime": "treelite"}
    ),
    "treelite: a mixed pipeline": lambda: (
        _mixed_steps(HistGradientBoostingClassifier(max_iter=5)).fit(MIXED, _THREE), MIXED, {"runtime": "treelite"}
    ),
    "onnx: numbers": lambda: (LinearRegression().fit(NUMBERS, NUMBERS["a"] * 2), NUMBERS, {"runtime": "onnx"}),
    "onnx: a mixed pipeline": lambda: (
        _mixed_steps(LogisticRegression()).fit(MIXED, _THREE), MIXED, {"runtime": "onnx"}
    ),
}  # fmt: skip


@pytest.mark.parametrize("title", _CASES)
def test_a_table_is_answered_as_its_rows_are(title: str, tmp_path: Path) -> None:
    model, table, options = _CASES[title]()
    version = load_version(tmp_path, model, table, **options)
    assert version.manifest.runtime == options.get("runtime", version.manifest.runtime)
    rows = 9
    arrow = _to_arrow(table, rows)
    for method in version.manifest.methods:
        alone, alike = predict_rows_alone(version, method, arrow), predict_table_alike(version, method, arrow)
        parity = compare_predictions(alone, alike)
        assert parity.mismatches == ()
        assert parity.difference < 1e-6
        assert len(alike) == rows


def _to_arrow(table: Any, rows: int) -> pa.Table:
    if isinstance(table, pd.DataFrame):
        return pa.Table.from_pandas(table[:rows], preserve_index=False)
    if isinstance(table[0], dict):
        return pa.Table.from_pylist(table[:rows])
    return pa.table({"text": table[:rows]})


@pytest.mark.parametrize("shape", [(4,), (2, 2)])
def test_lists_come_as_a_column_of_lists_or_as_a_column_of_each_value(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    rows = np.asarray(NUMBERS).reshape(-1, *shape)

    version = load_version(tmp_path, SumOfEach().fit(rows), rows, trust_pickle=True)
    nested = pa.table({"instance": rows[:5].tolist(), "key": range(5)})
    flat = pa.Table.from_pandas(NUMBERS[:5])
    expected = predict_rows_alone(version, "predict", nested)
    assert predict_table_alike(version, "predict", nested) == expected
    assert predict_table_alike(version, "predict", flat) == expected
    broken = pa.table({"instance": [None, rows[0].tolist(), rows[1].tolist()[:1], rows[2].tolist()]})
    outcomes = predict_table_alike(version, "predict", broken)
    assert outcomes == predict_rows_alone(version, "predict", broken)
    assert [isinstance(outcome, float) for outcome in outcomes] == [False, True, False, True]


class SumOfEach:
    """A model of lists of any shape."""

    def fit(self, rows: Any) -> SumOfEach:
        return self

    def predict(self, rows: Any) -> Any:
        return np.asarray(rows).reshape(len(rows), -1).sum(axis=1)
