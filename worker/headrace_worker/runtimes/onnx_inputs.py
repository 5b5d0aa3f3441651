"""Infer the input schema of an ONNX file, and convert instances to its inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnxruntime

from headrace.catalog.contract import Array, Feature, Kind, Named, Text, Tokens
from headrace.errors import InvalidInput, ModelError
from headrace_worker.runtimes import InputSchema
from headrace_worker.runtimes.input_arrays import check_no_optional, make_number_stacker, to_float32

FLOAT_TENSORS = {"tensor(float)": np.float32, "tensor(double)": np.float64}
TENSOR_TYPES = FLOAT_TENSORS | {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}
_KINDS: dict[str, Kind] = {
    "tensor(float)": "number",
    "tensor(double)": "number",
    "tensor(int64)": "integer",
    "tensor(int32)": "integer",
    "tensor(bool)": "boolean",
    "tensor(string)": "string",
}


def infer_input(session: onnxruntime.InferenceSession, instances: Sequence[Any], title: str) -> InputSchema:
    """Infer the input schema from a session's inputs; the example decides what they leave open.

    Raises ModelError if the instances cannot be converted to the inputs.
    """
    inputs = session.get_inputs()
    for node in inputs:
        if node.type not in _KINDS:
            raise ModelError(f"{title}: the input {node.name!r} is a {node.type}, which no value can become")
        if not node.shape or isinstance(node.shape[0], int):
            raise ModelError(f"{title}: the input {node.name!r} has no free first dimension; export it with one")
    first = instances[0]
    if len(inputs) > 1 or (isinstance(first, dict) and [node.name for node in inputs] == list(first)):
        return Named(features=tuple(_infer_feature(node, instances, title) for node in inputs))
    (node,) = inputs
    if isinstance(first, str):
        return Text()
    if isinstance(first, dict):
        return _infer_named(node, instances, title)
    return _infer_array(node, instances, title)


def _infer_feature(node: Any, instances: Sequence[Any], title: str) -> Feature:
    if not all(isinstance(instance, dict) and node.name in instance for instance in instances):
        raise ModelError(f"{title} takes {node.name!r}, which is missing in an instance of the example")
    has_missing = any(instance[node.name] is None for instance in instances)
    return Feature(name=node.name, kind=_KINDS[node.type], nullable=has_missing and node.type in FLOAT_TENSORS)


def _infer_named(node: Any, instances: Sequence[Any], title: str) -> Named:
    names = list(instances[0])
    if len(node.shape) != 2 or (isinstance(node.shape[1], int) and node.shape[1] != len(names)):
        raise ModelError(f"{title} takes rows of shape {node.shape[1:]}; the example holds {len(names)} features")
    nullable = {name: any(instance.get(name) is None for instance in instances) for name in names}
    kind = _KINDS[node.type]
    return Named(features=tuple(Feature(name=name, kind=kind, nullable=nullable[name]) for name in names))


def _infer_array(node: Any, instances: Sequence[Any], title: str) -> Array:
    shape = np.shape(np.array(instances[0], dtype=object))
    if len(shape) != len(node.shape) - 1 or any(
        isinstance(expected, int) and expected != actual
        for expected, actual in zip(node.shape[1:], shape, strict=True)
    ):
        raise ModelError(f"{title} takes rows of shape {node.shape[1:]}; those of the example are {list(shape)}")
    has_missing = any(value is None for instance in instances for value in np.array(instance, dtype=object).flat)
    return Array(shape=shape, kind=_KINDS[node.type], nullable=has_missing and node.type in FLOAT_TENSORS)


def make_feeder(
    session: onnxruntime.InferenceSession, input_schema: InputSchema, features: list[str] | None
) -> Callable[[Sequence[Any]], dict[str, Any]]:
    """Return a function that converts a batch of instances to a session's inputs.

    `features` are the features of the inputs, in their order; None if they have the names of the inputs. Raises
    ModelError if instances of this schema cannot be converted.
    """
    inputs = session.get_inputs()
    for node in inputs:
        if node.type not in TENSOR_TYPES:
            raise ModelError(f"the input {node.name!r} is a {node.type}, which no value can become")
    check_no_optional(input_schema)
    if isinstance(input_schema, Tokens):
        raise ModelError("the contract takes lists of strings of any length, which no input of an ONNX file is")
    stack_numbers = make_number_stacker(input_schema)
    if len(inputs) == 1 and isinstance(input_schema, Text):
        name, shape = inputs[0].name, inner_shape(inputs[0])
        return lambda texts: {name: np.array(texts, dtype=object).reshape(-1, *shape)}
    if len(inputs) == 1 and stack_numbers is not None and not is_only_feature(inputs[0], input_schema):
        name, kind = inputs[0].name, inputs[0].type
        return lambda instances: {name: cast(stack_numbers(instances), kind)}
    names = features or [node.name for node in inputs]
    contract_names = (
        {feature.name for feature in input_schema.features} if isinstance(input_schema, Named) else set()
    )
    if len(names) != len(inputs) or not contract_names.issuperset(names):
        raise ModelError(f"the ONNX file takes {', '.join(names)}, which the contract does not have")
    columns = [(name, node.name, node.type, inner_shape(node)) for name, node in zip(names, inputs, strict=True)]

    def feed(instances: Sequence[Any]) -> dict[str, Any]:
        return {
            name: to_column([instance[feature] for instance in instances], kind).reshape(-1, *shape)
            for feature, name, kind, shape in columns
        }

    return feed


def to_column(values: list[Any], kind: str) -> Any:
    """Convert the values of a feature to an array for an input. Raises InvalidInput."""
    if kind in FLOAT_TENSORS:
        return cast(np.array(values, dtype=np.float64), kind)
    if None in values:
        raise InvalidInput("a value is missing, and the ONNX file accepts no missing value here")
    return np.array(values, dtype=TENSOR_TYPES[kind])


def cast(numbers: Any, kind: str) -> Any:
    """Convert a float64 array to the numbers of an input. Raises InvalidInput."""
    if kind == "tensor(float)":
        return to_float32(numbers)
    return np.ascontiguousarray(numbers, dtype=TENSOR_TYPES[kind])


def is_only_feature(node: Any, input_schema: InputSchema) -> bool:
    """Decide whether an input is the only feature of named instances."""
    if not isinstance(input_schema, Named):
        return False
    return [node.name] == [feature.name for feature in input_schema.features]


def inner_shape(node: Any) -> list[int]:
    """Return the dimensions of an input after the rows, for a column of single values."""
    return [1] * (len(node.shape) - 1)
