"""A version keeps the types of a typed table; a model that cannot serve single rows is refused in a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import DBSCAN
from sklearn.compose import make_column_transformer
from sklearn.covariance import EmpiricalCovariance
from sklearn.decomposition import SparsePCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from headrace.catalog.contract import Feature
from headrace.errors import ModelError
from headrace_worker import package
from headrace_worker.models.loader import load
from headrace_worker.store.store import Store

RANDOM = np.random.default_rng(5)
TARGET = RANDOM.random(40) > 0.5


def _package(column: Any, store: Path, **options: Any) -> tuple[Any, Feature]:
    """Package a model of one encoded column. Return it with the contract's feature."""
    table = pd.DataFrame({"kind": column})
    model = make_pipeline(make_column_transformer((OneHotEncoder(), ["kind"])), LogisticRegression())
    version = package(model.fit(table, TARGET), table, name="model", store=str(store), **options)
    (feature,) = version.manifest.contract.input.features  # type: ignore[union-attr]  # named
    return model, feature


@pytest.mark.parametrize(
    "values",
    [["small", "medium", "large"], [3, 1, 2], [True, False], [0.5, 2.0]],
    ids=["str", "int", "bool", "float"],
)
def test_categories_keep_their_order_and_types_though_an_encoder_sorts_them(values: Any, tmp_path: Path) -> None:
    column = pd.Categorical(RANDOM.choice(np.array(values, dtype=object), 40), categories=values, ordered=True)
    _, feature = _package(column, tmp_path)
    assert feature.categories is not None
    assert list(feature.categories) == values
    assert [type(category) for category in feature.categories] == [type(value) for value in values]


@pytest.mark.parametrize("dtype", ["string[pyarrow]", "int64[pyarrow]", "bool[pyarrow]", "double[pyarrow]"])
def test_columns_of_arrow_are_built_as_the_model_was_fitted_on_them(dtype: str, tmp_path: Path) -> None:
    import pyarrow as pa

    types = {"string": pa.string(), "int64": pa.int64(), "bool": pa.bool_(), "double": pa.float64()}
    arrow = pd.ArrowDtype(types[dtype.partition("[")[0]])
    values = {"string": ["a", "b"], "bool": [True, False]}.get(dtype.partition("[")[0], [1, 2])
    model, _ = _package(pd.Series(RANDOM.choice(np.array(values, dtype=object), 40)).astype(arrow), tmp_path)
    loaded = load(Store(tmp_path), "model", "1")
    frame = pd.DataFrame({"kind": pd.Series(values).astype(arrow)})
    assert loaded.predict("predict_proba", [{"kind": value} for value in values]) == pytest.approx(
        model.predict_proba(frame)
    )


def test_a_model_that_fails_on_a_single_row_is_refused_in_a_sentence(tmp_path: Path) -> None:
    table = RANDOM.normal(size=(40, 4))
    model = SparsePCA(2, max_iter=5).fit(table)
    with pytest.raises(ModelError, match=r"predicts 32 rows together, but not row 0 alone: .* Put the model"):
        package(model, table, name="model", store=str(tmp_path))


@pytest.mark.parametrize(
    ("model", "advice"),
    [(DBSCAN(), "fit a classifier on its `labels_`"), (EmpiricalCovariance(), "or an object with `predict`")],
)
def test_an_estimator_that_has_no_answer_for_new_rows_is_refused_with_advice(
    model: Any, advice: str, tmp_path: Path
) -> None:
    table = RANDOM.normal(size=(40, 2))
    with pytest.raises(ModelError, match=advice):
        package(model.fit(table), table, name="model", store=str(tmp_path))
