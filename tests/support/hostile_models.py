"""A model that does what each instance requests: fail, exit, run out of memory. For tests; `add` packages it.

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

#: The number of instances in each call of `Obedient.predict` in this process.
calls: list[int] = []

#: The environment in which a worker process can load the model: this module, and trust in pickles.
SERVING = {"PYTHONPATH": str(ROOT), "HEADRACE_TRUST_PICKLE": "true"}


class Obedient(RegressorMixin, BaseEstimator):
    """A model that predicts twice the `size` unless `do` requests something else. `secret` is for errors only."""

    def fit(self, table: pd.DataFrame, _: Any = None) -> Obedient:
        self.feature_names_in_ = np.array(table.columns, dtype=object)
        self.n_features_in_ = len(table.columns)
        return self

    def predict(self, table: pd.DataFrame) -> Any:
        calls.append(len(table))
        for row in table.to_dict(orient="records"):
            _execute(row)
        sizes = 2.0 * table["size"].to_numpy(dtype=float)
        for index, do in enumerate(table["do"]):
            match do:
                case "report threads":
                    sizes[index] = max(pool["num_threads"] for pool in threadpool_info())
                case "report process":
                    sizes[index] = os.getpid()
        return sizes[1:] if "return too few" in set(table["do"]) else sizes


def _execute(row: dict[str, Any]) -> None:
    match row["do"]:
        case "raise":
            payload = dict(row)  # a local variable that must not appear in reports
            raise ValueError(f"no prediction for {payload!r} of size {row['size']:.2f}")
        case "raise from":
            try:
                _execute({**row, "do": "raise"})
            except ValueError as error:
                raise RuntimeError(f"and therefore none for {row['secret']}") from error
        case "exit":
            raise SystemExit(3)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "eat memory":
            raise MemoryError(f"no room for {row['secret']}")
        case "raise unreadable":
            raise UnreadableError


class UnreadableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("the message cannot be built")


def instance(do: str = "predict", *, secret: str = "none", size: float = 1.0) -> dict[str, Any]:
    """Return an instance that requests `do`."""
    return {"do": do, "secret": secret, "size": size}


def add(
    store: Store, name: str = "obedient", *, max_batch_instances: int = 1024, alone: bool = False, ballast: int = 0
) -> Manifest:
    """Package the model into a store. `ballast` is the memory it takes, in bytes."""
    rows = pd.DataFrame([instance(secret="a"), instance("predict well", secret="b", size=2.5)])
    folder = store.path.parent
    file, example = folder / f"{name}.joblib", folder / f"{name}.csv"
    model = Obedient().fit(rows)
    model.ballast_ = np.ones(ballast, dtype=np.uint8)
    joblib.dump(model, file)
    rows.to_csv(example, index=False)
    limits = Limits(max_batch_instances=max_batch_instances, alone=alone)
    return package(store, file, name=name, example=example, trust_pickle=True, limits=limits)
