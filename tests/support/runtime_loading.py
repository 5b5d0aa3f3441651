"""Load an estimator into a runtime as a worker does after it has verified digests. For tests."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from headrace.catalog.contract import Array, Contract, Named, Output, Text
from headrace_worker.manifest import Example, Manifest
from headrace_worker.runtimes import VerifiedVersion


def load_runtime(
    runtime: Any,
    estimator: Any,
    input_schema: Named | Array | Text,
    *methods: str,
    compiled: bytes | None = None,
) -> Any:
    """Compile and load a version whose contract has these methods. `compiled` replaces the compiled bytes."""
    assert compiled is not None or runtime.explain_rejection(estimator, input_schema) == ""
    data = runtime.compile(estimator, input_schema) if compiled is None else compiled
    outputs = {method: Output(shape=()) for method in methods}
    manifest = Manifest(
        name="model",
        version="1",
        created=datetime.now(UTC),
        estimator="",
        format="skops",
        sha256="",
        size=0,
        libraries={},
        contract=Contract(model="model", version="1", input=input_schema, methods=outputs),
        example=Example(instances=[], expected={}),
    )
    return runtime.load(VerifiedVersion(manifest, b"", data, lambda: estimator))
