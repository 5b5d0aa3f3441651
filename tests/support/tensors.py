"""Tensors of tritonclient from numpy arrays and frames."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import tritonclient.http as triton
from tritonclient.utils import np_to_triton_dtype


def tensor(name: str, values: Any, *, binary: bool = True) -> triton.InferInput:
    """Return the tensor of an array, whose data is sent as bytes or as JSON."""
    array = np.asarray(values)
    array = array.astype(object) if array.dtype.kind in "UO" else array
    tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    return tensor.set_data_from_numpy(array, binary_data=binary)


def tensors(table: pd.DataFrame, *, binary: bool = True) -> list[triton.InferInput]:
    """Return a tensor for each column of a frame."""
    return [tensor(str(name), column.to_numpy(), binary=binary) for name, column in table.items()]


def output(name: str, *, binary: bool = True) -> triton.InferRequestedOutput:
    """Return an output to ask for."""
    return triton.InferRequestedOutput(name, binary_data=binary)


def connect(url: str, **options: Any) -> Iterator[triton.InferenceServerClient]:
    """Yield a client of a server, and close it at the end."""
    client = triton.InferenceServerClient(url.removeprefix("http://"), **options)
    try:
        yield client
    finally:
        client.close()
