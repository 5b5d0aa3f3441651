"""Load a version: verify its bytes, load the model from the same bytes, and run its example.

    read the bytes ─> [load them, run the example ─> run it again] ─> load them, run the example ─> serve
                       in a child               in its own child      in this process

The child does what this process is about to do, and its own child what a pool process will do. A model that ends
or blocks either never gets into this process. A version that must not be loaded before a fork is not forked, and a
process that will fork only proves it and keeps its bytes.
"""

from __future__ import annotations

import math
import platform
import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

from headrace.catalog.contract import Contract
from headrace.catalog.validation import check_method
from headrace.errors import ModelError
from headrace.wire.message import Instance
from headrace.wire.outcome import ClassLabel
from headrace_worker.manifest import Manifest, installed_libraries
from headrace_worker.models.child_process import run_in_child
from headrace_worker.own_modules import OwnModules
from headrace_worker.parity import compare_predictions
from headrace_worker.runtimes import Runtime, VerifiedVersion, find_runtime, pyfunc
from headrace_worker.runtimes.predictions import check_count
from headrace_worker.runtimes.python import is_trusted
from headrace_worker.store import artifact
from headrace_worker.store.store import Store, check_digest

#: The tolerances for numbers of the example: linear algebra on another machine may add in another order.
_RELATIVE_TOLERANCE, _ABSOLUTE_TOLERANCE = 1e-6, 1e-9

#: The seconds a child may take to load a version, and a fork of it to run the example, which takes milliseconds.
LOAD_SECONDS, _EXAMPLE_SECONDS = 600.0, 60.0


class LoadedModel:
    """A version whose bytes were verified and whose example gave the expected predictions."""

    def __init__(self, manifest: Manifest, runtime: Runtime | None, own_modules: OwnModules | None = None) -> None:
        self.manifest = manifest
        self._runtime, self._own_modules = runtime, own_modules
        outputs = manifest.contract.methods.items()
        self._classes = {method: output.column_classes for method, output in outputs}

    @property
    def contract(self) -> Contract:
        """The input and output of the version."""
        return self.manifest.contract

    def classes_of(self, method: str) -> tuple[ClassLabel, ...] | None:
        """Return the classes whose values a method's predictions hold; None if they hold no value for each."""
        return self._classes.get(method)

    def predict(self, method: str, instances: Sequence[Instance]) -> list[Any]:
        """Return a JSON-able prediction for each instance; they have passed `check_instances` of the contract.

        Raises the model's errors, and ModelError unless it returns one prediction for each instance.
        """
        checked, runtime = check_method(self.contract, method), self._loaded_runtime()
        if self._own_modules is None:
            predictions = runtime.predict(checked, instances)
        else:
            with self._own_modules.importable():
                predictions = runtime.predict(checked, instances)
        check_count(len(predictions), len(instances))
        return predictions

    def predict_table(self, method: str, batch: Any) -> Any:
        """Return an Arrow array of predictions for the columns of a RecordBatch, which fit the contract.

        Return None if the runtime takes the rows of this version as instances only. Raises the model's errors, and
        ModelError unless it returns one prediction for each row.
        """
        checked, runtime = check_method(self.contract, method), self._loaded_runtime()
        predict_table = getattr(runtime, "predict_table", None)
        if predict_table is None:
            return None
        with self._own_modules.importable() if self._own_modules else nullcontext():
            predictions = predict_table(checked, batch)
        if predictions is not None:
            check_count(len(predictions), batch.num_rows)
        return predictions

    def _loaded_runtime(self) -> Runtime:
        if self._runtime is None:
            raise ModelError(f"{self.manifest.title} is loaded after the fork only, and not in this process")
        return self._runtime


class DeferredModel(LoadedModel):
    """A version that must not be loaded before a fork. It predicts nothing; `load` returns what does."""

    def __init__(
        self, manifest: Manifest, prove: Callable[[], None], load_verified: Callable[[], LoadedModel]
    ) -> None:
        super().__init__(manifest, None)
        #: Loads it in a child process, and runs its example there. Raises ModelError and OSError.
        self.prove = prove
        #: Loads it in this process, and runs its example. Raises ModelError.
        self.load = load_verified


def load(
    store: Store,
    model: str,
    version: str,
    *,
    max_bytes: int = 2 * 1024**3,
    trust_pickle: bool = False,
    trust_modules: str = "",
    prove: bool = False,
    defer: bool = False,
) -> LoadedModel:
    """Load a version from the store, and verify it.

    With `prove`, it is loaded in a child process first: only in a process that has run no threads of OpenMP, as a
    fork waits for them for ever. With `defer`, a DeferredModel is returned for a version that must not be loaded
    before a fork. Raises UnknownModel if it does not exist, and ModelError if it must not serve.
    """
    manifest = store.read_manifest(model, version)
    _check_libraries(manifest)
    _check_trust(manifest, trust_modules, trust_pickle=trust_pickle)
    data = store.read_artifact(model, version, max_bytes=max_bytes)
    compiled = store.read_compiled(model, version, max_bytes=max_bytes) if manifest.compiled else b""
    code = store.read_code(model, version, max_bytes=max_bytes) if manifest.code else b""
    files = (manifest, data, compiled, code)
    prove_files = partial(prove_version, *files, max_bytes=max_bytes, trust_pickle=trust_pickle)
    load_files = partial(verify_and_load, *files, max_bytes=max_bytes, trust_pickle=trust_pickle)
    if prove:
        prove_files()
    if defer and manifest.limits.load_after_fork:
        return DeferredModel(manifest, prove_files, load_files)
    return load_files()


def _check_trust(manifest: Manifest, trust_modules: str, *, trust_pickle: bool) -> None:
    """Raise ModelError for a version that would run code which nobody has allowed to run."""
    if not trust_pickle and (reason := _explain_need_of_trust(manifest)):
        raise ModelError(
            f"{manifest.title} {reason}; if you trust everyone who can write to the model store, set "
            "HEADRACE_TRUST_PICKLE=true"
        )
    module = re.split(r"[.:]", manifest.factory)[0]
    is_covered = manifest.factory == pyfunc.FACTORY or (manifest.code and module in manifest.code.modules)
    if manifest.factory and not is_covered and not is_trusted(manifest.factory, trust_modules):
        raise ModelError(
            f"{manifest.title} is made by {manifest.factory}, which runs code of that module; if you trust "
            "everyone who can write to the model store, name the module in HEADRACE_TRUST_MODULES"
        )


def _explain_need_of_trust(manifest: Manifest) -> str:
    """Return the reason why a version must be trusted like a pickle; empty if it need not be."""
    if manifest.format == "joblib":
        return "is stored as joblib, and loading it runs whatever code is in it"
    if manifest.code is not None:
        return f"brings the modules {', '.join(manifest.code.modules)}, whose code runs when it is loaded"
    if manifest.factory == pyfunc.FACTORY:
        return "is loaded by MLflow, which runs whatever code is in it"
    return ""


def prove_version(
    manifest: Manifest,
    data: bytes,
    compiled: bytes = b"",
    code: bytes = b"",
    *,
    max_bytes: int,
    trust_pickle: bool,
) -> None:
    """Load a model in a child process, and run its example there and in a fork of it.

    A version that must not be loaded before a fork runs in no fork of the child. Raises ModelError, and OSError if
    no process can be forked.
    """
    title = manifest.title

    def prove() -> None:
        loaded = verify_and_load(manifest, data, compiled, code, max_bytes=max_bytes, trust_pickle=trust_pickle)
        if manifest.limits.load_after_fork:
            return
        doing = f"{title}, loaded before a fork, predicted its example after it,"
        try:
            run_in_child(lambda: _run_examples(loaded), seconds=_EXAMPLE_SECONDS, doing=doing)
        except ModelError as error:
            raise ModelError(
                f"{error}; before the fork it predicted its example: if it starts threads or uses a GPU, add it "
                "with --load-after-fork"
            ) from None

    run_in_child(prove, seconds=LOAD_SECONDS, doing=f"{title} was loaded")


def verify_and_load(
    manifest: Manifest,
    data: bytes,
    compiled: bytes = b"",
    code: bytes = b"",
    *,
    max_bytes: int,
    trust_pickle: bool,
) -> LoadedModel:
    """Load a model from its bytes after comparing their digests with the manifest, and run its example.

    Raises ModelError.
    """
    check_digest(manifest.title, data, manifest.sha256)
    if manifest.compiled is not None:
        check_digest(manifest.title, compiled, manifest.compiled.sha256)
    own_modules: OwnModules | None = None
    if manifest.code is not None:
        check_digest(manifest.title, code, manifest.code.sha256)
        own_modules = OwnModules(code, manifest.title, max_bytes=max_bytes)

    def estimator() -> Any:
        form, title = manifest.format, manifest.title
        if form in {"onnx", "data"}:
            raise ModelError(f"{title} holds no estimator, and its runtime {manifest.runtime} needs one")
        return artifact.load(
            data, form, title, max_bytes=max_bytes, trust_pickle=trust_pickle, classes=manifest.classes
        )

    with own_modules.importable() if own_modules else nullcontext():
        runtime = find_runtime(manifest.runtime).load(VerifiedVersion(manifest, data, compiled, estimator))
    loaded = LoadedModel(manifest, runtime, own_modules)
    _run_examples(loaded)
    return loaded


def _check_libraries(manifest: Manifest) -> None:
    packaged, installed = manifest.libraries.get("scikit-learn", "0"), installed_libraries()["scikit-learn"]
    if artifact.is_newer(packaged, installed):
        raise ModelError(
            f"{manifest.title} was packaged with scikit-learn {packaged}, newer than the {installed} here; "
            "upgrade the worker's scikit-learn"
        )
    made_with, python = manifest.libraries.get("python", ""), platform.python_version()
    if "cloudpickle" in manifest.libraries and _series(made_with) != _series(python):
        raise ModelError(
            f"{manifest.title} holds functions as code of Python {made_with}, which the {python} here cannot run; "
            f"package it with Python {_series(python)}, or serve it with an image that has {_series(made_with)}"
        )


def _series(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _run_examples(loaded: LoadedModel) -> None:
    for method in loaded.manifest.methods:
        _run_example(loaded, method)


def _run_example(loaded: LoadedModel, method: str) -> None:
    manifest = loaded.manifest
    try:
        predictions = loaded.predict(method, manifest.example.instances)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{manifest.title} fails on its own example: {method}: {type(error).__name__}") from error
    expected = manifest.example.expected.get(method, [])
    if manifest.runtime == "sklearn":
        is_same = is_same_prediction(expected, predictions)
    else:  # it may compute with 32-bit floats, and is compared as in the trial when the version was packaged
        is_same = not compare_predictions(expected, predictions).mismatches
    if not is_same:
        raise ModelError(
            f"{manifest.title} gives other predictions for its example than when it was packaged: {method}; "
            "train and package it with the libraries the worker has"
        )


def is_same_prediction(expected: Any, actual: Any) -> bool:
    """Compare two predictions: classes and integers exactly, other numbers to 6 digits."""
    if isinstance(expected, list):
        if not isinstance(actual, list) or len(actual) != len(expected):
            return False
        return all(map(is_same_prediction, expected, actual))
    if isinstance(expected, dict):
        if not isinstance(actual, dict) or actual.keys() != expected.keys():
            return False
        return all(is_same_prediction(value, actual[name]) for name, value in expected.items())
    if isinstance(expected, float) or isinstance(actual, float):
        if not isinstance(expected, int | float) or not isinstance(actual, int | float):
            return False
        return math.isclose(expected, actual, rel_tol=_RELATIVE_TOLERANCE, abs_tol=_ABSOLUTE_TOLERANCE)
    return bool(expected == actual and type(expected) is type(actual))
