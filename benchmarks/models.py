"""The models and rows of the benchmarks, created once for each run from a fixed seed.

The same estimators are written as joblib files for the peers, and as versions in Headrace model stores.
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
from headrace_worker.packaging.table import read_table
from headrace_worker.store.store import Store

#: Models that all peers run: name -> title in the tables.
TITLES = {
    "logistic": "logistic regression",
    "forest": "random forest, 100 trees",
    "boosting": "histogram gradient boosting",
}
#: Boosters, which Headrace and plain Celery run. They lie in a folder of their own.
BOOSTERS = {"lightgbm": "LightGBM, 200 trees", "xgboost": "XGBoost, 200 trees"}
BOOSTERS_FOLDER = "boosters"
#: A CPU-bound model for the comparison of one and two pool processes: a prediction compares the row with nearly
#: every training row, since nearly all of them are support vectors.
CPU_BOUND = "vectors"
#: The store of the models of a fleet, which are alike: what a fleet costs does not depend on what it computes.
FLEET_STORE = "fleet"
FEATURES = 30
#: Model stores in the folder: versions that scikit-learn runs, and versions in their fastest runtime.
STORE, FAST_STORE = "store", "fast"
METHOD = "predict_proba"


def make(folder: Path, *, fast: bool) -> None:
    """Fit the models; write them, the rows and a model store into the folder, and with `fast` a second store."""
    table, classes = _make_table()
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
    _add(folder, CPU_BOUND, SVC(gamma=0.5).fit(*_noise(6_000)), "predict")


def make_boosters(folder: Path) -> None:
    """Fit the boosters, each with one thread; write them, the rows and a model store into the folder."""
    import lightgbm
    import xgboost

    folder.mkdir()
    table, classes = _make_table()
    train, rows = table[:3_000], table[3_000:]
    (folder / "rows.json").write_text(json.dumps(rows.tolist()))
    fitted: dict[str, Any] = {
        "lightgbm": lightgbm.LGBMClassifier(n_estimators=200, n_jobs=1, verbose=-1, random_state=7),
        "xgboost": xgboost.XGBClassifier(n_estimators=200, n_jobs=1, random_state=7),
    }
    for name, estimator in fitted.items():
        joblib.dump(estimator.fit(train, classes[:3_000]), folder / f"{name}.joblib")
        example = read_table(rows[:8])
        package(Store(folder / STORE), estimator, name=name, example=example, method=METHOD)


def make_fleet(folder: Path, count: int, prefix: str = "model") -> list[str]:
    """Fit one small model, and add it to the store of fleets under several names; return the names."""
    names = [f"{prefix}-{number:02}" for number in range(count)]
    table, classes = _make_table()
    estimator = LogisticRegression().fit(table[:3_000], classes[:3_000])
    for name in names:
        _add(folder, name, estimator, METHOD, store=FLEET_STORE)
    return names


def _make_table() -> tuple[Any, Any]:
    table, classes = make_classification(4_000, FEATURES, n_informative=12, random_state=7)
    return table, classes


def _noise(count: int) -> tuple[Any, Any]:
    generator = np.random.default_rng(7)
    return generator.normal(size=(count, FEATURES)), generator.integers(0, 2, count)


def _add(
    folder: Path, name: str, estimator: Any, method: str, *, store: str = STORE, runtime: str = "sklearn"
) -> None:
    file, example = folder / f"{name}.skops", folder / "example.json"
    skops.io.dump(estimator, file)
    package(Store(folder / store), file, name=name, example=example, method=method, runtime=runtime)
