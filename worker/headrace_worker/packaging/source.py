"""Read the model to package: a file with an estimator, an MLflow folder, an ONNX file, or `module:factory`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from sklearn.base import BaseEstimator, is_clusterer
from sklearn.model_selection._search import BaseSearchCV

from headrace.errors import ModelError
from headrace.wire.outcome import ClassLabel
from headrace_worker import boosters
from headrace_worker.boosters.formats import is_booster_format
from headrace_worker.manifest import Format
from headrace_worker.own_modules import OwnModules
from headrace_worker.packaging.mlflow import archive_folder, read_mlflow_model
from headrace_worker.packaging.own_modules import archive_modules
from headrace_worker.packaging.prover import prove_file
from headrace_worker.runtimes import InputSchema, pyfunc
from headrace_worker.runtimes.estimator_tree import METHODS, is_model
from headrace_worker.runtimes.python import is_factory
from headrace_worker.store import artifact
from headrace_worker.store.folder import read_capped

_NO_MODULES = OwnModules(b"", "", max_bytes=0)


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A model as it was read."""

    title: str
    format: Format
    #: The bytes to store unchanged; None if the estimator must be dumped.
    data: bytes | None
    #: The pickle that the estimator was read from, which is stored if skops cannot store the estimator.
    pickle: bytes | None = None
    #: The estimator, for any runtime that accepts it; None if only `runtime` can execute the model.
    estimator: Any = None
    #: The fitted model that a person has, with methods that take tables, if the estimator was made of that.
    original: Any = None
    #: That model's class, for people.
    estimator_name: str = ""
    #: The labels of the classes of a booster whose file does not have them.
    classes: tuple[ClassLabel, ...] = ()
    runtime: str = ""
    factory: str = ""
    #: The version of scikit-learn that the estimator was made with, if that is older than here; else empty.
    made_with: str = ""
    #: The archive of the modules that the version brings along; empty for none.
    code: bytes = b""
    #: The modules that the model was read with, with which it must be called.
    own_modules: OwnModules = _NO_MODULES
    #: The input of the contract and the example, if they were stored with the model.
    signature: InputSchema | None = None
    example: Path | None = None


def read_source(
    model: Any, *, data: Path | None, code: Sequence[Path] = (), max_bytes: int, trust_pickle: bool
) -> Source:
    """Read a model: an estimator, a path, or `module:factory`, whose artifact is the file `data`.

    `code` are the files and folders of the modules that the version brings along. Raises ModelError.
    """
    if code and not trust_pickle:
        raise ModelError(
            "the modules of --code run whenever the version is loaded, as a pickle does; if you trust who wrote "
            "them, add --trust-pickle (trust_pickle=True)"
        )
    archive = archive_modules(code, max_bytes=max_bytes) if code else b""
    if not isinstance(model, str | Path):
        return msgspec.structs.replace(_take_estimator(model), code=archive)
    if isinstance(model, str) and not Path(model).exists() and is_factory(model):
        content = read_capped(data, data.name, max_bytes) if data else b""
        return Source(
            title=model,
            format="data",
            data=content,
            runtime="python",
            factory=model,
            code=archive,
            own_modules=OwnModules(archive, model, max_bytes=max_bytes),
        )
    if data is not None:
        raise ModelError("only a module:factory takes data; a file is the model itself")
    path = Path(model)
    if not path.is_dir():
        return _read_file(path, archive, max_bytes=max_bytes, trust_pickle=trust_pickle)
    mlflow_model = read_mlflow_model(path)
    if trust_pickle and mlflow_model.code and not code:
        archive = archive_modules(mlflow_model.code, max_bytes=max_bytes)
    if mlflow_model.file is None:
        source = _read_pyfunc(path, archive, max_bytes=max_bytes, trust_pickle=trust_pickle)
    else:
        source = _read_file(mlflow_model.file, archive, max_bytes=max_bytes, trust_pickle=trust_pickle)
    return msgspec.structs.replace(source, signature=mlflow_model.signature, example=mlflow_model.example)


def _read_pyfunc(folder: Path, code: bytes, *, max_bytes: int, trust_pickle: bool) -> Source:
    """Read an MLflow folder that MLflow itself loads, and its modules in the archive `code`."""
    if not trust_pickle:
        raise ModelError(
            f"{folder.name} is loaded by MLflow, which runs whatever code is in it; if you trust its maker, add "
            "--trust-pickle"
        )
    return Source(
        title=folder.name,
        format="data",
        data=archive_folder(folder, max_bytes=max_bytes),
        runtime="python",
        factory=pyfunc.FACTORY,
        code=code,
        own_modules=OwnModules(code, folder.name, max_bytes=max_bytes),
    )


def _read_file(path: Path, code: bytes, *, max_bytes: int, trust_pickle: bool) -> Source:
    """Read a file, and the modules in the archive `code`."""
    own_modules = OwnModules(code, path.name, max_bytes=max_bytes)
    with own_modules.importable():
        source = _read_model(path, code, max_bytes=max_bytes, trust_pickle=trust_pickle)
    return msgspec.structs.replace(source, code=code, own_modules=own_modules)


def _read_model(path: Path, code: bytes, *, max_bytes: int, trust_pickle: bool) -> Source:
    data = read_capped(path, path.name, max_bytes)
    if path.suffix.lower() == ".onnx":
        return Source(title=path.name, format="onnx", data=data, runtime="onnx")
    form = artifact.detect_format(data, path.name)
    if form == "joblib" and not trust_pickle:
        raise ModelError(
            f"{path.name} is a pickle, and reading a pickle runs whatever code is in it; if you trust its maker, "
            "add --trust-pickle; better, save the model with skops (`skops.io.dump`)"
        )
    prove_file(data, form, path.name, code, max_bytes=max_bytes, trust_pickle=trust_pickle)
    estimator = artifact.load(data, form, path.name, max_bytes=max_bytes, trust_pickle=trust_pickle)
    if is_booster_format(form):
        return Source(title=path.name, format=form, data=data, estimator=estimator)
    best = _best_estimator(estimator)
    if booster := _take_booster(best, path.name):
        return booster
    unchanged = data if best is estimator else None
    made_with = artifact.find_older_sklearn(data, form, max_bytes)
    if form == "skops":
        return Source(title=path.name, format=form, data=unchanged, estimator=best, made_with=made_with)
    return Source(title=path.name, format=form, data=None, pickle=unchanged, estimator=best, made_with=made_with)


def _take_estimator(estimator: Any) -> Source:
    if not is_model(estimator):
        raise ModelError(
            f"a {type(estimator).__name__} is no fitted model: it has none of the methods {', '.join(METHODS)}"
            f"{_advise(estimator)}"
        )
    title, best = type(estimator).__name__, _best_estimator(estimator)
    return _take_booster(best, title) or Source(title=title, format="skops", data=None, estimator=best)


def _advise(estimator: Any) -> str:
    """Return what to do about an estimator that predicts no new instances, as the end of a sentence."""
    if isinstance(estimator, BaseEstimator) and is_clusterer(estimator):
        return "; it only labels the rows it was fitted on: fit a classifier on its `labels_`, and package that"
    if isinstance(estimator, BaseEstimator):
        return "; package the estimator that predicts from its results, or an object with `predict` that calls it"
    return ""


def _take_booster(model: Any, title: str) -> Source | None:
    """Convert a booster to its library's format, from which it is loaded again; None for another model."""
    exported = boosters.export(model)
    if exported is None:
        return None
    form, data, classes, table_model = exported
    return Source(
        title=title,
        format=form,
        data=data,
        estimator=boosters.load(data, form, title, classes),
        original=model if table_model is None else table_model,
        estimator_name=type(model).__name__,
        classes=classes,
    )


def _best_estimator(estimator: Any) -> Any:
    """Return the best estimator of a search. Only that predicts: the search need not be stored, or trusted."""
    return getattr(estimator, "best_estimator_", estimator) if isinstance(estimator, BaseSearchCV) else estimator
