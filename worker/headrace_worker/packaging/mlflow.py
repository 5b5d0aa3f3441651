"""Read an MLflow model folder without MLflow: the file that holds the model, its signature and its example.

The description, MLmodel, is YAML with the signature as JSON in it. The flavors `sklearn` and `onnx` are supported.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from headrace.catalog.contract import Array, Feature, Kind, Named
from headrace.errors import ModelError
from headrace_worker.runtimes import InputSchema
from headrace_worker.store.folder import read_capped

_DESCRIPTION = "MLmodel"
#: The largest description, in bytes.
_MAX_BYTES = 4 * 1024 * 1024
#: For each flavor, the entry that names the model's file, and the file's name without such an entry.
_FLAVORS = {"sklearn": ("pickled_model", "model.pkl"), "onnx": ("data", "model.onnx")}
_KINDS: dict[str, Kind] = {
    "boolean": "boolean",
    "integer": "integer",
    "long": "integer",
    "float": "number",
    "double": "number",
    "string": "string",
    "datetime": "datetime",
}


class MlflowModel(NamedTuple):
    """The model in an MLflow folder."""

    file: Path
    signature: InputSchema | None
    example: Path | None


def read_mlflow_model(folder: Path) -> MlflowModel:
    """Read an MLflow model folder. Raises ModelError."""
    title = f"{folder.name}/{_DESCRIPTION}"
    if not (folder / _DESCRIPTION).is_file():
        raise ModelError(f"{folder} is not an MLflow model: it has no {_DESCRIPTION}")
    description = _read_yaml(folder / _DESCRIPTION, title)
    flavors = description.get("flavors")
    names = list(flavors) if isinstance(flavors, dict) else []
    flavor = next((name for name in _FLAVORS if name in names), None)
    if flavor is None:
        raise ModelError(
            f"{title} has the flavors {', '.join(map(str, names)) or 'none'}; sklearn and onnx can be read; "
            "others are served by a module:factory that loads them"
        )
    key, default_name = _FLAVORS[flavor]
    entry = flavors[flavor] if isinstance(flavors, dict) else None
    file = (entry.get(key) if isinstance(entry, dict) else None) or default_name
    example_info = description.get("saved_input_example_info")
    example = example_info.get("artifact_path") if isinstance(example_info, dict) else None
    return MlflowModel(
        _resolve(folder, file, title),
        _read_signature(description.get("signature"), title),
        _resolve(folder, example, title) if example and (folder / str(example)).is_file() else None,
    )


def _resolve(folder: Path, name: Any, title: str) -> Path:
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
        description = yaml.safe_load(read_capped(path, title, _MAX_BYTES))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ModelError(f"{title} is not YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(description, dict):
        raise ModelError(f"{title} describes no model")
    return description


def _read_signature(signature: Any, title: str) -> InputSchema | None:
    """Convert a signature to the input of a contract; None if there is no signature."""
    if not isinstance(signature, dict) or not signature.get("inputs"):
        return None
    try:
        columns = json.loads(signature["inputs"])
        if len(columns) == 1 and columns[0].get("type") == "tensor" and "name" not in columns[0]:
            return _convert_tensor(columns[0]["tensor-spec"])
        return Named(features=tuple(map(_convert_column, columns)))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelError(f"the signature in {title} cannot be read: {type(error).__name__}: {error}") from None


def _convert_tensor(spec: dict[str, Any]) -> Array:
    dtype, shape = str(spec["dtype"]), [int(length) for length in spec["shape"]]
    kinds: dict[str, Kind] = {"float": "number", "int": "integer", "uint": "integer", "bool": "boolean"}
    kind = kinds.get(dtype.rstrip("0123456789"))
    if kind is None:
        raise ValueError(f"instances cannot be converted to a tensor of {dtype}")
    if len(shape) < 2 or -1 in shape[1:]:
        raise ValueError(f"a tensor of shape {shape} does not say the shape of one row")
    return Array(shape=tuple(shape[1:]), kind=kind)


def _convert_column(column: dict[str, Any]) -> Feature:
    name, kind = column["name"], column["type"]
    if kind not in _KINDS:
        raise ValueError(f"the column {name!r} is of type {kind}; supported are {', '.join(_KINDS)}")
    return Feature(
        name=str(name),
        kind=_KINDS[kind],
        nullable=not column.get("required", True),
        dtype="datetime64[ns]" if kind == "datetime" else None,  # as MLflow defines it
    )
