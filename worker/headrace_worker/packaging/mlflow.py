"""Read an MLflow model folder: the file that holds the model, its signature, its example and its code.

The description, MLmodel, is YAML with the signature as JSON in it. MLflow itself is needed only for a model of a
flavor whose file Headrace cannot read, which MLflow's own loader then loads.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple, get_args

from headrace.catalog.contract import Array, Feature, Kind, Named
from headrace.errors import ModelError
from headrace_worker.manifest import BoosterFormat
from headrace_worker.packaging.own_modules import archive_files
from headrace_worker.runtimes import InputSchema
from headrace_worker.store.folder import check_size, read_capped

_DESCRIPTION = "MLmodel"
#: The largest description, in bytes.
_MAX_BYTES = 4 * 1024 * 1024
#: For each flavor, the entry that names the model's file, and the file's name without such an entry.
_FLAVORS = {
    "sklearn": ("pickled_model", "model.pkl"),
    "onnx": ("data", "model.onnx"),
    **{library: ("data", f"model.{library}") for library in get_args(BoosterFormat)},
}
#: The flavor that MLflow's own loader loads.
_PYFUNC = "python_function"
_KINDS: dict[str, Kind] = {
    "boolean": "boolean",
    "integer": "integer",
    "long": "integer",
    "float": "number",
    "double": "number",
    "string": "string",
    "datetime": "datetime",
}
#: The types of MLflow's columns, as it defines them, where they are not those of their kind.
_DTYPES = {"integer": "int32", "float": "float32", "datetime": "datetime64[ns]"}


class MlflowModel(NamedTuple):
    """The model in an MLflow folder."""

    #: None if MLflow itself must load the folder.
    file: Path | None
    signature: InputSchema | None
    example: Path | None
    #: The modules in the folder that MLflow puts on Python's path: its `code_paths`.
    code: tuple[Path, ...] = ()


def read_mlflow_model(folder: Path) -> MlflowModel:
    """Read an MLflow model folder. Raises ModelError."""
    title = f"{folder.name}/{_DESCRIPTION}"
    if not (folder / _DESCRIPTION).is_file():
        raise ModelError(f"{folder} is not an MLflow model: it has no {_DESCRIPTION}")
    description = _read_yaml(folder / _DESCRIPTION, title)
    flavors = description.get("flavors")
    names = list(flavors) if isinstance(flavors, dict) else []
    flavor = next((name for name in _FLAVORS if name in names), None)
    if flavor is None and _PYFUNC not in names:
        raise ModelError(
            f"{title} has the flavors {', '.join(map(str, names)) or 'none'}; {', '.join(_FLAVORS)} and {_PYFUNC} "
            "can be read; others are served by a module:factory that loads them"
        )
    file = None if flavor is None else _resolve(folder, _find_file(flavors, flavor), title)
    example_info = description.get("saved_input_example_info")
    example = example_info.get("artifact_path") if isinstance(example_info, dict) else None
    return MlflowModel(
        file,
        _read_signature(description.get("signature"), title),
        _resolve(folder, example, title) if example and (folder / str(example)).is_file() else None,
        _find_code(folder, flavors, title),
    )


def _find_file(flavors: Any, flavor: str) -> Any:
    """Return the name of the file that holds the model of a flavor."""
    key, default_name = _FLAVORS[flavor]
    entry = flavors[flavor]
    return (entry.get(key) if isinstance(entry, dict) else None) or default_name


def archive_folder(folder: Path, *, max_bytes: int) -> bytes:
    """Return an archive of an MLflow folder, which MLflow loads from it. Raises ModelError."""
    files: dict[str, bytes] = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            files[file.relative_to(folder).as_posix()] = read_capped(file, file.name, max_bytes)
            check_size(sum(map(len, files.values())), folder.name, max_bytes)
    return archive_files(files)


def _find_code(folder: Path, flavors: Any, title: str) -> tuple[Path, ...]:
    """Return the modules in the folder with the model's code, which each flavor names."""
    names = (entry.get("code") for entry in flavors.values() if isinstance(entry, dict))
    name = next(filter(None, names), None)
    if name is None:
        return ()
    path = (folder / str(name)).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ModelError(f"{title} names a folder outside of it: {str(name)[:64]!r}")
    modules = (entry for entry in sorted(path.iterdir()) if entry.is_dir() or entry.suffix == ".py")
    return tuple(entry for entry in modules if not entry.name.startswith((".", "__pycache__")))


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
    name, kind, is_nullable = column["name"], column["type"], not column.get("required", True)
    if kind not in _KINDS:
        raise ValueError(f"the column {name!r} is of type {kind}; supported are {', '.join(_KINDS)}")
    dtype = None if is_nullable and kind == "integer" else _DTYPES.get(kind)
    return Feature(name=str(name), kind=_KINDS[kind], nullable=is_nullable, dtype=dtype)
