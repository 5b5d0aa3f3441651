"""What a person adds: a file of an estimator, an MLflow folder, an ONNX file, or the factory of a Python model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from sklearn.model_selection._search import BaseSearchCV

from headrace.errors import ModelError
from headrace_worker.manifest import Format
from headrace_worker.packaging import mlflow
from headrace_worker.packaging.infer import Input
from headrace_worker.runtimes.python import is_factory
from headrace_worker.store import artifact
from headrace_worker.store.folder import read_capped


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A model as it was found."""

    title: str
    format: Format
    #: The bytes to store as they are; None where an estimator is to be stored anew.
    data: bytes | None
    #: What to package, for a runtime of one's choice; None where `runtime` is the only one.
    estimator: Any = None
    runtime: str = ""
    factory: str = ""
    #: The input of the contract, and the example, where they came with the model.
    signature: Input | None = None
    example: Path | None = None


def read_source(model: str | Path, *, data: Path | None, max_bytes: int, trust_pickle: bool) -> Source:
    """Read what was added: a path, or `module:factory`, whose artifact is the file `data`. Raises ModelError."""
    if isinstance(model, str) and not Path(model).exists() and is_factory(model):
        read = read_capped(data, data.name, max_bytes) if data else b""
        return Source(title=model, format="data", data=read, runtime="python", factory=model)
    if data is not None:
        raise ModelError("only a module:factory is given data; a file is the model itself")
    path = Path(model)
    if not path.is_dir():
        return _read_file(path, max_bytes=max_bytes, trust_pickle=trust_pickle)
    found = mlflow.read_mlflow_model(path)
    inside = _read_file(found.file, max_bytes=max_bytes, trust_pickle=trust_pickle)
    return msgspec.structs.replace(inside, signature=found.signature, example=found.example)


def _read_file(path: Path, *, max_bytes: int, trust_pickle: bool) -> Source:
    data = read_capped(path, path.name, max_bytes)
    if path.suffix.lower() == ".onnx":
        return Source(title=path.name, format="onnx", data=data, runtime="onnx")
    form = artifact.detect_format(data, path.name)
    if form == "joblib" and not trust_pickle:
        raise ModelError(
            f"{path.name} is a pickle, and reading a pickle runs whatever code is in it; if you trust its maker, "
            "say --trust-pickle; better, save the model with skops (`skops.io.dump`)"
        )
    estimator = artifact.load(data, form, path.name, max_bytes=max_bytes, trust_pickle=trust_pickle)
    if isinstance(estimator, BaseSearchCV) and hasattr(estimator, "best_estimator_"):
        # What the search found is what predicts; how it searched need not be stored, or trusted.
        return Source(title=path.name, format=form, data=None, estimator=estimator.best_estimator_)
    kept = data if form == "skops" else None
    return Source(title=path.name, format=form, data=kept, estimator=estimator)
