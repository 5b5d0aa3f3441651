"""Tensors to the instances of a job, by the form of a model's contract.

    Named    one input a feature, [n] or [n, 1]; or one input [n, features] of another name, in the same order
    Array    one input [n, *shape] of any name; or one input a column, [n] or [n, 1], in the order of the request
    Text     one input [n] or [n, 1] of BYTES
    Tokens   one input [n, tokens] of BYTES; null at the end of a row fills it up

What instances then hold is not checked here: that the contract refuses them is told as for every other producer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from headrace.catalog.contract import Array, Contract, Named, Text, Tokens
from headrace.errors import InvalidInput
from headrace_gateway.open_inference.tensors import Tensor


def make_instances(contract: Contract, inputs: Sequence[Tensor]) -> list[Any]:
    """Return the instances that the tensors of a request describe. Raises InvalidInput."""
    title = f"{contract.model}@{contract.version}"
    rows = inputs[0].shape[0]
    for tensor in inputs:
        if tensor.shape[0] != rows:
            raise InvalidInput(f"{title}: {_name(tensor)} has another number of instances than {_name(inputs[0])}")
    match contract.input:
        case Named(features=features):
            names = [feature.name for feature in features]
            return _make_objects(title, names, inputs)
        case Array(shape=shape):
            return _make_lists(title, shape, inputs)
        case Text():
            return _read_column(title, _only(title, "texts", inputs), "a text for each instance")
        case Tokens():
            return _make_tokens(title, _only(title, "lists of tokens", inputs))


def _make_objects(title: str, names: Sequence[str], inputs: Sequence[Tensor]) -> list[Any]:
    first = inputs[0]
    if len(inputs) == 1 and first.name not in names and len(first.shape) == 2:
        width = first.shape[1]
        if width != len(names):
            raise InvalidInput(
                f"{title}: {_name(first)} has rows of {width:,} values, and the model takes {len(names):,} "
                "features; send all of them, or one input for each feature under its name"
            )
        return [dict(zip(names, row, strict=True)) for row in _rows(first.values, width)]
    columns = {tensor.name: _read_column(title, tensor, "a value for each instance") for tensor in inputs}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _make_lists(title: str, shape: Sequence[int], inputs: Sequence[Tensor]) -> list[Any]:
    first = inputs[0]
    if not shape:
        return _read_column(title, _only(title, "single values", inputs), "a value for each instance")
    if len(inputs) > 1 or (len(first.shape) == 1 and math.prod(shape) == 1):
        if len(shape) > 1:
            raise InvalidInput(
                f"{title} takes one input, whose first dimension is the instances and whose others are "
                f"{_dimensions(shape)}; the request has {len(inputs):,} inputs"
            )
        columns = [_read_column(title, tensor, "a value for each instance") for tensor in inputs]
        return [list(row) for row in zip(*columns, strict=True)]
    if len(first.shape) != len(shape) + 1:
        raise InvalidInput(
            f"{title}: {_name(first)} must have {len(shape) + 1} dimensions, the instances and then "
            f"{_dimensions(shape)}; it has {len(first.shape)}"
        )
    return _nest(first.values, first.shape)


def _make_tokens(title: str, tensor: Tensor) -> list[Any]:
    if len(tensor.shape) != 2:
        raise InvalidInput(f"{title}: {_name(tensor)} must have 2 dimensions, the instances and their tokens")
    instances = _rows(tensor.values, tensor.shape[1])
    for tokens in instances:
        while tokens and tokens[-1] is None:
            tokens.pop()
    return instances


def _only(title: str, content: str, inputs: Sequence[Tensor]) -> Tensor:
    if len(inputs) != 1:
        raise InvalidInput(f"{title} takes {content}, which are one input; the request has {len(inputs):,}")
    return inputs[0]


def _read_column(title: str, tensor: Tensor, expected: str) -> list[Any]:
    if len(tensor.shape) > 2 or tensor.shape[1:] not in ((), (1,)):
        raise InvalidInput(f"{title}: {_name(tensor)} must hold {expected}: its shape is [n] or [n, 1]")
    return tensor.values


def _rows(values: list[Any], width: int) -> list[list[Any]]:
    return [values[start : start + width] for start in range(0, len(values), width)]


def _nest(values: list[Any], shape: Sequence[int]) -> list[Any]:
    for length in reversed(shape[1:]):
        values = _rows(values, length)
    return values


def _dimensions(shape: Sequence[int]) -> str:
    return " x ".join(str(length) for length in shape)


def _name(tensor: Tensor) -> str:
    return f"input {tensor.name[:64]!r}"
