"""Load a version: verify its bytes, make the estimator of those very bytes, and let the example prove it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from headrace.catalog.contract import Contract
from headrace.catalog.validation import check_method
from headrace.errors import ModelError
from headrace.wire.message import Instance
from headrace_worker.manifest import Manifest, installed_libraries
from headrace_worker.parity import compare_predictions
from headrace_worker.runtimes import Runtime, VerifiedVersion, find_runtime
from headrace_worker.runtimes.python import is_trusted
from headrace_worker.store import artifact
from headrace_worker.store.store import Store, check_digest

#: How far a number may be from the example's: another machine's linear algebra adds in another order.
_RELATIVE, _ABSOLUTE = 1e-6, 1e-9


class LoadedModel:
    """A version that has been verified and proven, ready to predict."""

    def __init__(self, manifest: Manifest, runtime: Runtime) -> None:
        self.manifest = manifest
        self._runtime = runtime

    @property
    def contract(self) -> Contract:
        """What the version takes and gives."""
        return self.manifest.contract

    def predict(self, method: str, instances: Sequence[Instance]) -> list[Any]:
        """Return a JSON-able prediction for each instance; they have passed `check_instances` of the contract."""
        return self._runtime.predict(check_method(self.contract, method), instances)


def load(
    store: Store,
    model: str,
    version: str,
    *,
    max_bytes: int = 2 * 1024**3,
    trust_pickle: bool = False,
    trust_modules: str = "",
) -> LoadedModel:
    """A version of the store, verified and proven.

    Raises UnknownModel for one that is not there, ModelError for one that must not serve.
    """
    manifest = store.read_manifest(model, version)
    _check_libraries(manifest)
    if manifest.factory and not is_trusted(manifest.factory, trust_modules):
        raise ModelError(
            f"{manifest.title} is made by {manifest.factory}, which runs code of that module; "
            "name the module in HEADRACE_TRUST_MODULES where whoever writes the model store is trusted with it"
        )
    if manifest.format == "joblib" and not trust_pickle:
        raise ModelError(
            f"{manifest.title} is stored as joblib, and loading it runs whatever code is in it; "
            "set HEADRACE_TRUST_PICKLE=true where whoever writes the model store is trusted"
        )
    data = store.read_artifact(model, version, max_bytes=max_bytes)
    compiled = store.read_compiled(model, version, max_bytes=max_bytes) if manifest.compiled else b""
    return verify_and_load(manifest, data, compiled, max_bytes=max_bytes, trust_pickle=trust_pickle)


def verify_and_load(
    manifest: Manifest, data: bytes, compiled: bytes = b"", *, max_bytes: int, trust_pickle: bool
) -> LoadedModel:
    """The model in an artifact's bytes, once their digests and the example say that it is what was packaged."""
    check_digest(manifest.title, data, manifest.sha256)
    if manifest.compiled is not None:
        check_digest(manifest.title, compiled, manifest.compiled.sha256)

    def estimator() -> Any:
        form, title = manifest.format, manifest.title
        if form in {"onnx", "data"}:
            raise ModelError(f"{title} holds no estimator, which its runtime {manifest.runtime} asks for")
        return artifact.load(data, form, title, max_bytes=max_bytes, trust_pickle=trust_pickle)

    runtime = find_runtime(manifest.runtime).load(VerifiedVersion(manifest, data, compiled, estimator))
    loaded = LoadedModel(manifest, runtime)
    for method in manifest.methods:
        _run_example(loaded, method)
    return loaded


def _check_libraries(manifest: Manifest) -> None:
    made, here = manifest.libraries.get("scikit-learn", "0"), installed_libraries()["scikit-learn"]
    if artifact.is_newer(made, here):
        raise ModelError(
            f"{manifest.title} was packaged with scikit-learn {made}, newer than the {here} here; "
            "upgrade the worker's scikit-learn"
        )


def _run_example(loaded: LoadedModel, method: str) -> None:
    manifest = loaded.manifest
    try:
        got = loaded.predict(method, manifest.example.instances)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{manifest.title} fails on its own example: {method}: {type(error).__name__}") from error
    expected = manifest.example.expected.get(method, [])
    # Another runtime may compute with 32-bit floats, and is compared as it was when it was chosen.
    if not (
        is_same_prediction(expected, got)
        if manifest.runtime == "sklearn"
        else not compare_predictions(expected, got).mismatches
    ):
        raise ModelError(
            f"{manifest.title} gives other predictions for its example than when it was packaged: {method}; "
            "train and package it with the libraries the worker has"
        )


def is_same_prediction(expected: Any, got: Any) -> bool:
    """Whether two predictions are equal: classes and integers exactly, other numbers to 6 digits."""
    if isinstance(expected, list):
        return isinstance(got, list) and len(got) == len(expected) and all(map(is_same_prediction, expected, got))
    if isinstance(expected, float) or isinstance(got, float):
        numbers = isinstance(expected, int | float) and isinstance(got, int | float)
        return numbers and math.isclose(expected, got, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)
    return bool(expected == got and type(expected) is type(got))
