"""An MLflow model folder, read without MLflow: which file holds the model, and what its signature says.

MLmodel is YAML; the schemas in it are JSON within that. Of the flavors, `sklearn` and `onnx` are read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from headrace.catalog.contract import Array, Feature, Kind, Named
from headrace.errors import ModelError
from headrace_worker.packaging.infer import Input
from headrace_worker.store.folder import read_capped

_DESCRIPTION = "MLmodel"
_MOST_BYTES = 4 * 1024 * 1024
#: The file of each flavor: the name of its entry, and what it is called where there is no such entry.
_FLAVORS = {"sklearn": ("pickled_model", "model.pkl"), "onnx": ("data", "model.onnx")}
_KINDS: dict[str, Kind] = {
    "boolean": "boolean",
    "integer": "integer",
    "long": "integer",
    "float": "number",
    "double": "number",
    "string": "string",
}


class MlflowModel(NamedTuple):
    """What an MLflow folder holds."""

    file: Path
    signature: Input | None
    example: Path | None


def read_mlflow_model(folder: Path) -> MlflowModel:
    """What is in an MLflow model folder. Raises ModelError."""
    title = f"{folder.name}/{_DESCRIPTION}"
    if not (folder / _DESCRIPTION).is_file():
        raise ModelError(f"{folder} is no MLflow model: it has no {_DESCRIPTION}")
    described = _read_yaml(folder / _DESCRIPTION, title)
    flavors = described.get("flavors")
    names = list(flavors) if isinstance(flavors, dict) else []
    flavor = next((name for name in _FLAVORS if name in names), None)
    if flavor is None:
        raise ModelError(
            f"{title} has the flavors {', '.join(map(str, names)) or 'none'}; sklearn and onnx can be read; "
            "others are served by a module:factory that loads them"
        )
    key, usual = _FLAVORS[flavor]
    entry = flavors[flavor] if isinstance(flavors, dict) else None
    file = (entry.get(key) if isinstance(entry, dict) else None) or usual
    saved = described.get("saved_input_example_info")
    example = saved.get("artifact_path") if isinstance(saved, dict) else None
    return MlflowModel(
        _inside(folder, file, title),
        _given(described.get("signature"), title),
        _inside(folder, example, title) if example and (folder / str(example)).is_file() else None,
    )


def _inside(folder: Path, name: Any, title: str) -> Path:
    path = (folder / str(name)).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ModelError(f"{title} names a file outside of the folder: {str(name)[:64]!r}")
    if not path.is_file():
        raise ModelError(f"{title} names {str(name)[:64]!r}, which is not in the folder")
    return path


def _read_yaml(path: Path, title: str) -> dict[str, Any]:
    try:
        import yaml
    except ModuleNotFoundError:
        raise ModelError("an MLflow model is described in YAML; pip install 'headrace-worker[mlflow]'") from None
    try:
        read = yaml.safe_load(read_capped(path, title, _MOST_BYTES))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ModelError(f"{title} is not YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(read, dict):
        raise ModelError(f"{title} describes no model")
    return read


def _given(signature: Any, title: str) -> Input | None:
    """The input of a contract that a signature stands for; None where there is no signature."""
    if not isinstance(signature, dict) or not signature.get("inputs"):
        return None
    try:
        columns = json.loads(signature["inputs"])
        if len(columns) == 1 and columns[0].get("type") == "tensor" and "name" not in columns[0]:
            return _tensor(columns[0]["tensor-spec"])
        return Named(features=tuple(map(_feature, columns)))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelError(f"the signature in {title} cannot be read: {type(error).__name__}: {error}") from None


def _tensor(spec: dict[str, Any]) -> Array:
    dtype, shape = str(spec["dtype"]), [int(length) for length in spec["shape"]]
    kinds: dict[str, Kind] = {"float": "number", "int": "integer", "uint": "integer", "bool": "boolean"}
    kind = kinds.get(dtype.rstrip("0123456789"))
    if kind is None:
        raise ValueError(f"a tensor of {dtype} is nothing instances can be made into")
    if len(shape) < 2 or -1 in shape[1:]:
        raise ValueError(f"a tensor of shape {shape} says not what one row looks like")
    return Array(shape=tuple(shape[1:]), kind=kind)


def _feature(column: dict[str, Any]) -> Feature:
    name, kind = column["name"], column["type"]
    if kind not in _KINDS:
        raise ValueError(f"the column {name!r} is of type {kind}; there are {', '.join(_KINDS)}")
    return Feature(name=str(name), kind=_KINDS[kind], nullable=not column.get("required", True))
