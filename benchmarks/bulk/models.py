"""The models: fitted from fixed seeds, written as joblib files and as versions of a model store."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from threadpoolctl import threadpool_limits

from benchmarks.bulk.tables import FEATURES, make_table
from headrace_worker.packaging.package import package
from headrace_worker.packaging.table import read_table
from headrace_worker.store.store import Store

#: The model whose single rows are predicted while a run goes on.
ONLINE = "online"
_TRAINING_ROWS, _EXAMPLE_ROWS = 4_000, 8
#: The training rows' numbers lie behind those of every table.
_FIRST_TRAINING_ROW = 10**12


class Model(NamedTuple):
    """A model of the comparison."""

    title: str
    #: The kind of its table.
    kind: str


MODELS = {
    "logistic": Model("logistic regression", "numbers"),
    "mixed": Model("pipeline of imputation, scaling, one-hot encoding and logistic regression", "mixed"),
    "boosting": Model("histogram gradient boosting", "numbers"),
    "forest": Model("random forest, 100 trees", "numbers"),
}


def make(folder: Path, trees: int) -> Path:
    """Fit the models, and write each as a joblib file into the folder; return the store with their versions.

    `trees` is the number of trees of the forest and of the boosting.
    """
    store = Store(folder / "models")
    # Threads of OpenMP wait for each other in a loop, and a busy machine has no processors for that.
    with threadpool_limits(1):
        for name, model in MODELS.items():
            frame = make_table(model.kind, _TRAINING_ROWS, _FIRST_TRAINING_ROW).to_pandas()[FEATURES[model.kind]]
            estimator = _unfitted(name, trees).fit(frame, _classes(frame))
            joblib.dump(estimator, estimator_file(folder, name))
            _add(store, name, estimator, frame.head(_EXAMPLE_ROWS))
            if name == "forest":
                values = frame.to_numpy()
                online = _unfitted(name, trees).fit(values, _classes(frame))
                _add(store, ONLINE, online, values[:_EXAMPLE_ROWS])
    return store.path


def _add(store: Store, name: str, estimator: Any, example: Any) -> None:
    package(store, estimator, name=name, example=read_table(example), method="predict")


def estimator_file(folder: Path, model: str) -> Path:
    """Return the joblib file of a model."""
    return folder / f"{model}.joblib"


def _unfitted(name: str, trees: int) -> Any:
    if name == "logistic":
        return LogisticRegression()
    if name == "boosting":
        return HistGradientBoostingClassifier(max_iter=trees, random_state=7)
    if name == "forest":
        return RandomForestClassifier(trees, random_state=7)
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    texts = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    names = FEATURES["mixed"]
    columns = ColumnTransformer(
        [
            ("numbers", numbers, [name for name in names if name.startswith("n")]),
            ("texts", texts, [name for name in names if not name.startswith("n")]),
        ]
    )
    return make_pipeline(columns, LogisticRegression())


def _classes(frame: pd.DataFrame) -> np.ndarray:
    """Return a class for each row that its first numbers decide, with some noise."""
    first, second = (frame.iloc[:, number].fillna(0).to_numpy() for number in (0, 1))
    noise = np.random.default_rng(7).normal(size=len(frame))
    return (first + second**2 + 0.5 * noise > 1).astype(int)
