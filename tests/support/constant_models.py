"""Models that always predict the same number."""

from __future__ import annotations

from pathlib import Path

import skops.io
from sklearn.dummy import DummyRegressor

from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store


def add_constant(store: Store, folder: Path, name: str, constant: float) -> str:
    """Package the next version of a model, with files in `folder`. Return the version."""
    file, example = folder / f"{name}.skops", folder / f"{name}.json"
    skops.io.dump(DummyRegressor(strategy="constant", constant=constant).fit([[0.0]], [constant]), file)
    example.write_text("[[1.0], [2.0]]")
    return package(store, file, name=name, example=example).version
