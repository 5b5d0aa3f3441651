"""The models and rows, created once for each run from a fixed seed: joblib files, and a Headrace model store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import skops.io
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from headrace_worker.manifest import Limits
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store

#: The models: name -> title in the tables.
TITLES = {"logistic": "logistic regression", "forest": "random forest"}
FEATURES = 30
METHOD = "predict_proba"
#: The adaptive batching of all servers that have one: as many rows as there are connections, filled for 5 ms.
BATCH, BATCH_SECONDS = 64, 0.005
#: The end of the name of the same model without batching, for one connection.
UNBATCHED = "-unbatched"
#: Rows that the requests repeat.
_ROWS = 500


class Models:
    """The files of the models in a folder."""

    def __init__(self, folder: Path, trees: int) -> None:
        self.folder, self.store = folder / "models", folder / "store"
        self.folder.mkdir()
        table, classes = make_classification(2_500 + _ROWS, FEATURES, n_informative=12, random_state=7)
        train, self.rows = table[:2_500], table[2_500:]
        fitted: dict[str, Any] = {
            "logistic": LogisticRegression().fit(train, classes[:2_500]),
            "forest": RandomForestClassifier(trees, random_state=7).fit(train, classes[:2_500]),
        }
        self.expected = {name: estimator.predict_proba(self.rows) for name, estimator in fitted.items()}
        example = folder / "example.json"
        example.write_text(json.dumps(self.rows[:8].tolist()))
        batching = Limits(max_batch_instances=BATCH, max_batch_wait=BATCH_SECONDS)
        for name, estimator in fitted.items():
            joblib.dump(estimator, self.folder / f"{name}.joblib")
            skops.io.dump(estimator, self.folder / f"{name}.skops")
            for model, limits in ((name, batching), (name + UNBATCHED, Limits())):
                package(
                    Store(self.store),
                    self.folder / f"{name}.skops",
                    name=model,
                    example=example,
                    method=METHOD,
                    runtime="sklearn",
                    limits=limits,
                )

    def check(self, model: str, row: int, prediction: Any) -> None:
        """Raise ValueError unless a prediction is that of the estimator for the row of this number."""
        if not np.allclose(prediction, self.expected[model][row], rtol=0, atol=1e-9):
            raise ValueError(f"a server predicted something else than the {model} model in process")
