"""Load what a runtime makes of an estimator, as a worker does after it has compared digests. For tests."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from headrace.catalog.contract import Array, Contract, Named, Output, Text
from headrace_worker.manifest import Example, Manifest
from headrace_worker.runtimes import VerifiedVersion


def loaded(
    runtime: Any, estimator: Any, given: Named | Array | Text, *methods: str, compiled: bytes | None = None
) -> Any:
    """The runtime with a version whose contract has these methods; those of the runtime where none is named."""
    assert compiled is not None or runtime.explain_rejection(estimator, given) == ""
    data = runtime.compile(estimator, given) if compiled is None else compiled
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
        contract=Contract(model="model", version="1", input=given, methods=outputs),
        example=Example(instances=[], expected={}),
    )
    return runtime.load(VerifiedVersion(manifest, b"", data, lambda: estimator))
