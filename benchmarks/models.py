"""The models and rows every peer runs: made here, once for a run, from the same seed.

As joblib files for the peers, and as versions in two Headrace stores made from the same estimators.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import skops.io
from sklearn.datasets import make_classification
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store

#: The models the peers run, and what the tables call them.
TITLES = {
    "logistic": "logistic regression",
    "forest": "random forest, 100 trees",
    "boosting": "histogram gradient boosting",
}
#: A model bound by CPU, for the comparison of one and two pool processes: nearly every row of its training is
#: a support vector, and each is compared with each row to predict.
BOUND = "vectors"
FEATURES = 30
#: The store whose versions scikit-learn itself runs, and that whose versions run in the quickest runtime found.
STORE, FAST_STORE = "store", "fast"
METHOD = "predict_proba"


def make(folder: Path, *, fast: bool) -> None:
    """Fit the models and write them, the rows to predict and a Headrace store, or two, into the folder."""
    table, classes = make_classification(4_000, FEATURES, n_informative=12, random_state=7)
    train, rows = table[:3_000], table[3_000:]
    fitted: dict[str, Any] = {
        "logistic": LogisticRegression().fit(train, classes[:3_000]),
        "forest": RandomForestClassifier(100, random_state=7).fit(train, classes[:3_000]),
        "boosting": HistGradientBoostingClassifier(random_state=7).fit(train, classes[:3_000]),
    }
    (folder / "rows.json").write_text(json.dumps(rows.tolist()))
    (folder / "example.json").write_text(json.dumps(rows[:8].tolist()))
    for name, estimator in fitted.items():
        joblib.dump(estimator, folder / f"{name}.joblib")
        _add(folder, name, estimator, METHOD)
        if fast:
            _add(folder, name, estimator, METHOD, store=FAST_STORE, runtime="auto")
    bound = SVC(gamma=0.5).fit(*_noise(6_000))
    _add(folder, BOUND, bound, "predict")


def _noise(count: int) -> tuple[Any, Any]:
    chance = np.random.default_rng(7)
    return chance.normal(size=(count, FEATURES)), chance.integers(0, 2, count)


def _add(
    folder: Path, name: str, estimator: Any, method: str, *, store: str = STORE, runtime: str = "sklearn"
) -> None:
    file, example = folder / f"{name}.skops", folder / "example.json"
    skops.io.dump(estimator, file)
    package(Store(folder / store), file, name=name, example=example, method=method, runtime=runtime)
