"""An object for the Python runtime that predicts with MLflow's own loader, for MLflow folders of any flavor.

    headrace_worker.runtimes.pyfunc:Pyfunc

Its data is an archive of the folder. MLflow runs the code that the folder names, so it is trusted like a pickle.
"""

from __future__ import annotations

import io
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from headrace.errors import ModelError

#: The factory, as manifests name it.
FACTORY = f"{__name__}:Pyfunc"


class Pyfunc:
    """A model that MLflow has loaded."""

    methods = ("predict",)

    def __init__(self) -> None:
        self._model: Any = None
        #: Converts the column of a frame to the type that the signature names.
        self._converters: dict[str, Callable[[Any], Any]] = {}

    def load(self, data: bytes) -> None:
        """Load the folder in the archive. Its files are on disk only meanwhile. Raises ModelError."""
        try:
            from mlflow import pyfunc
        except ModuleNotFoundError as error:
            raise ModelError(
                f"an MLflow model of this flavor is loaded by MLflow, and {error.name} is not installed here; "
                "pip install mlflow, with the packages of the folder's requirements.txt"
            ) from None
        path = sys.path.copy()
        with tempfile.TemporaryDirectory(prefix="headrace-mlflow-") as folder:
            _unpack(data, Path(folder))
            try:
                self._model = pyfunc.load_model(folder)
            finally:
                sys.path[:] = path  # MLflow adds the folder's code/, which the version brings along itself
        schema = self._model.metadata.get_input_schema()
        if schema is not None and not schema.is_tensor_spec():
            self._converters = {column.name: _make_converter(column) for column in schema.inputs if column.name}

    def predict(self, method: str, instances: list[Any]) -> Any:  # noqa: ARG002  # the Python runtime's call
        """Return what the model predicts for a frame of the instances, or for an array if they are lists."""
        if not isinstance(instances[0], dict):
            return _first_output(self._model.predict(np.asarray(instances)))
        frame = pd.DataFrame(instances)
        for name, convert in self._converters.items():
            if name in frame:
                frame[name] = convert(frame[name])
        return _first_output(self._model.predict(frame))


def _first_output(output: Any) -> Any:
    if isinstance(output, pd.DataFrame):
        return output.iloc[:, 0].to_numpy() if output.shape[1] == 1 else output.to_numpy()
    return output.to_numpy() if isinstance(output, pd.Series) else output


def _make_converter(column: Any) -> Callable[[Any], Any]:
    name = str(getattr(column.type, "name", ""))
    if name == "datetime":
        return lambda values: pd.to_datetime(values).astype("datetime64[ns]")
    types = {"integer": "int32", "long": "int64", "float": "float32", "double": "float64", "boolean": "bool"}
    dtype = types.get(name)
    if dtype is None:
        return lambda values: values
    if column.required or dtype.startswith("float"):
        return lambda values: values.astype(dtype)
    return lambda values: values if values.isna().any() else values.astype(dtype)


def _unpack(data: bytes, folder: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        archive.extractall(folder)  # zipfile keeps members within the folder
