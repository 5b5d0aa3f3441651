"""A table for boosters, and a comparison of a stored booster with the fitted one. For tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from headrace.catalog.validation import check_instances
from headrace_worker.manifest import Manifest
from headrace_worker.models.loader import LoadedModel, load
from headrace_worker.packaging.package import package
from headrace_worker.packaging.table import read_table
from headrace_worker.store.store import Store

_RANDOM = np.random.default_rng(4)
ROWS = 240
#: The rows that are predicted alone: with and without gaps, and of each category.
_ALONE = 40
#: A column of numbers with gaps, one of integers, one of categories with gaps; and targets for each kind of model.
TABLE = pd.DataFrame(
    {
        "weight": np.where(_RANDOM.random(ROWS) < 0.15, np.nan, _RANDOM.normal(size=ROWS)),
        "visits": _RANDOM.integers(0, 9, ROWS),
        "plan": pd.Categorical(np.array(["free", "gold", "team"])[_RANDOM.integers(0, 3, ROWS)]),
    }
)
TABLE.loc[::9, "plan"] = None
NUMBERS = TABLE[["weight", "visits"]]
_SCORE = NUMBERS["weight"].fillna(2) + NUMBERS["visits"] / 4 + (TABLE["plan"] == "gold")
AMOUNT = _SCORE.to_numpy()
IS_LARGE = (_SCORE > 2).to_numpy()
#: Texts, in an order that is not that of the amounts.
SIZES = np.array(["small", "medium", "big"])[np.digitize(AMOUNT, [1.5, 2.5])]


def add_booster(folder: Path, model: Any, data: Any, **options: Any) -> Manifest:
    """Package a booster or its file with a typed table into the store `folder`/store."""
    return package(Store(folder / "store"), model, name="model", example=read_table(data), **options)


def load_as_worker(folder: Path) -> LoadedModel:
    """Load the first version as a worker does, trusting nothing.

    Packaging has proven it in a child process and a fork of that. This process has fitted it, with threads.
    """
    return load(Store(folder / "store"), "model", "1")


def assert_same_answers(loaded: LoadedModel, instances: Any, expected: dict[str, Any]) -> None:
    """Compare all methods of a loaded version with a booster's output, whole, and its first rows alone."""
    checked = check_instances(loaded.contract, instances)
    assert list(loaded.manifest.methods) == list(expected)
    for method, output in expected.items():
        whole = np.asarray(output).tolist()
        together = loaded.predict(method, checked)
        json.dumps(together, allow_nan=False)
        alone = [loaded.predict(method, [instance])[0] for instance in checked[:_ALONE]]
        for predictions, answers in ((together, whole), (alone, whole[:_ALONE])):
            if isinstance(answers[0], str | int | bool):
                assert predictions == answers
                assert type(predictions[0]) is type(answers[0])
            else:
                np.testing.assert_allclose(predictions, answers, rtol=1e-9, atol=1e-12)
