"""Models whose contracts have every form and every kind of value, and which predict for whatever fits.

A real estimator raises for a number near the largest float, which says nothing about the gateway.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
import skops.io
from sklearn.dummy import DummyClassifier, DummyRegressor

from headrace.catalog.contract import Array, Feature, InputSchema, Named, Text, Tokens
from headrace.catalog.typical import typical_instance
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store

#: The contract's input of each model, by its name.
INPUTS: dict[str, InputSchema] = {
    "customers": Named(
        features=(
            Feature(name="age", kind="number"),
            Feature(name="children (all)", kind="integer", nullable=True),
            Feature(name="is_member", kind="boolean"),
            Feature(name="plan", kind="category", categories=("basic", "gold")),
            Feature(name="tier", kind="category", categories=(1, 2, 3), nullable=True),
            Feature(name="city", kind="string", nullable=True),
            Feature(name="since", kind="date"),
            Feature(name="seen", kind="datetime"),
            Feature(name="paid", kind="datetime", dtype="datetime64[us, UTC]", nullable=True),
        )
    ),
    "grid": Array(shape=(2, 3)),
    "texts": Text(),
    "words": Tokens(),
}


def add_described_models(store: Store, folder: Path, names: Iterable[str] = tuple(INPUTS)) -> None:
    """Package models of INPUTS, with files in `folder`. `grid` is a regressor, the others are classifiers."""
    for name in names:
        schema = INPUTS[name]
        rows = [typical_instance(schema)] * 2
        model = DummyRegressor() if name == "grid" else DummyClassifier(strategy="prior")
        skops.io.dump(model.fit([[0.0], [1.0]], [0, 1]), folder / f"{name}.skops")
        (folder / f"{name}.json").write_bytes(msgspec.json.encode(rows))
        contract = folder / f"{name}.contract.json"
        contract.write_bytes(msgspec.json.encode({"input": schema}))
        package(store, folder / f"{name}.skops", name=name, example=folder / f"{name}.json", contract=contract)
