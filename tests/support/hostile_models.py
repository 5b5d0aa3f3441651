"""A model that does what its instances tell it to: fail, exit, run out of memory. For tests; `add` packages it.

A worker that serves it needs `SERVING` in its environment.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import joblib
import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, RegressorMixin
from threadpoolctl import threadpool_info

from headrace_worker.manifest import Limits, Manifest
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store
from tests.support import ROOT

#: The number of rows of each call of `Obedient.predict` in this process.
calls: list[int] = []

#: What a worker process needs to load the model: this file, and trust in pickles.
SERVING = {"PYTHONPATH": str(ROOT), "HEADRACE_TRUST_PICKLE": "true"}


class Obedient(RegressorMixin, BaseEstimator):
    """Twice the size, unless `do` says otherwise. `secret` is never looked at but in errors."""

    def fit(self, table: pd.DataFrame, _: Any = None) -> Obedient:
        self.feature_names_in_ = np.array(table.columns, dtype=object)
        self.n_features_in_ = len(table.columns)
        return self

    def predict(self, table: pd.DataFrame) -> Any:
        calls.append(len(table))
        for row in table.to_dict(orient="records"):
            _obey(row)
        sizes = 2.0 * table["size"].to_numpy(dtype=float)
        for place, do in enumerate(table["do"]):
            match do:
                case "tell threads":
                    sizes[place] = max(pool["num_threads"] for pool in threadpool_info())
                case "tell process":
                    sizes[place] = os.getpid()
        return sizes[1:] if "give too few" in set(table["do"]) else sizes


def _obey(row: dict[str, Any]) -> None:
    match row["do"]:
        case "raise":
            held = dict(row)  # a local variable with the payload in it
            raise ValueError(f"no prediction for {held!r} of size {row['size']:.2f}")
        case "raise from":
            try:
                _obey({**row, "do": "raise"})
            except ValueError as error:
                raise RuntimeError(f"and so none for {row['secret']}") from error
        case "exit":
            raise SystemExit(3)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "eat memory":
            raise MemoryError(f"no room for {row['secret']}")
        case "say nothing sensible":
            raise Unsayable


class Unsayable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def instance(do: str = "predict", *, secret: str = "none", size: float = 1.0) -> dict[str, Any]:
    """An instance of the model."""
    return {"do": do, "secret": secret, "size": size}


def add(store: Store, name: str = "obedient", *, max_batch_instances: int = 1024, ballast: int = 0) -> Manifest:
    """Package the model into a store; `ballast` is how many bytes it takes in memory."""
    rows = pd.DataFrame([instance(secret="a"), instance("predict well", secret="b", size=2.5)])
    folder = store.path.parent
    file, example = folder / f"{name}.joblib", folder / f"{name}.csv"
    model = Obedient().fit(rows)
    model.ballast_ = np.ones(ballast, dtype=np.uint8)
    joblib.dump(model, file)
    rows.to_csv(example, index=False)
    limits = Limits(max_batch_instances=max_batch_instances)
    return package(store, file, name=name, example=example, trust_pickle=True, limits=limits)
