"""Predictions to the tensors of an answer, as JSON or as bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from headrace.catalog.contract import Output
from headrace_gateway.open_inference.tensors import Tensor, encode_bytes

_INT64 = range(-(2**63), 2**63)
_CLASSES: dict[type, str] = {str: "BYTES", bool: "BOOL", int: "INT64", float: "FP64"}


class AnsweredOutput(NamedTuple):
    """An output of an answer: the tensor of a method's predictions, named by the method."""

    tensor: Tensor
    #: What the contract says of it; None if the contract does not know the method.
    output: Output | None
    #: True if its data follows the JSON part as bytes.
    binary: bool


def output_datatype(output: Output) -> str:
    """Return the datatype of a method's tensor as far as the contract knows it: FP64 if it has no classes."""
    classes = output.classes if output.shape == () else None
    kinds = {type(label) for label in classes or ()}
    return _CLASSES.get(kinds.pop(), "FP64") if len(kinds) == 1 else "FP64"


def make_tensor(method: str, predictions: Sequence[Any]) -> Tensor:
    """Return the tensor of predictions. Its datatype is that of their values.

    Numbers are FP64 if one has a fraction or is missing, else INT64. Predictions that are not all lists of the
    same lengths are BYTES, each as JSON: the sparse rows of a vectorizer, outputs of mixed types.
    """
    values, shape = list(predictions), [len(predictions)]
    while values and all(isinstance(value, list) for value in values):
        length = len(values[0])
        if not length or any(len(value) != length for value in values):
            break
        values = [item for value in values for item in value]
        shape.append(length)
    if (datatype := _datatype_of(values)) is None:
        texts = [msgspec.json.encode(prediction).decode() for prediction in predictions]
        return Tensor(method, "BYTES", (len(predictions),), texts)
    return Tensor(method, datatype, tuple(shape), values)


def _datatype_of(values: Sequence[Any]) -> str | None:
    types = set(map(type, values))
    if types == {bool}:
        return "BOOL"
    if types == {int} and all(value in _INT64 for value in values):
        return "INT64"
    if types <= {float, int, type(None)}:
        return "FP64"
    return "BYTES" if types <= {str, type(None)} else None


def encode_answer(
    model: str,
    version: str,
    id: str,  # noqa: A002  # the member's name
    outputs: Sequence[AnsweredOutput],
) -> tuple[bytes, int | None]:
    """Return the body of an answer, and the bytes of its JSON part; None if it is all of the body."""
    documents: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for tensor, output, binary in outputs:
        document: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
        parameters: dict[str, Any] = {}
        if output is not None and output.classes is not None:
            parameters["classes"] = output.classes
        if binary:
            encoded = encode_bytes(tensor.datatype, tensor.values)
            parameters["binary_data_size"] = len(encoded)
            parts.append(encoded)
        else:
            document["data"] = tensor.values
        documents.append(document | ({"parameters": parameters} if parameters else {}))
    answer = {"model_name": model, "model_version": version, "id": id, "outputs": documents}
    text = msgspec.json.encode(answer)
    return (b"".join([text, *parts]), len(text)) if parts else (text, None)
