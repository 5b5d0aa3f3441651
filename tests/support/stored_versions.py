"""A minimal manifest and artifact for tests of the model store. No model can be loaded from them."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from headrace.catalog.contract import Contract, Output, Text
from headrace_worker.manifest import Example, Manifest, installed_libraries

#: The bytes of the artifact.
DATA = b"the bytes of a model"


def make_manifest(name: str = "churn", data: bytes = DATA) -> Manifest:
    """Return a manifest without a version number for an artifact with these bytes."""
    return Manifest(
        name=name,
        version="0",
        created=datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
        estimator="Dummy",
        format="skops",
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        libraries=installed_libraries(),
        contract=Contract(model=name, version="0", input=Text(), methods={"predict": Output(shape=())}),
        example=Example(instances=["a"], expected={"predict": [1.5]}),
    )
