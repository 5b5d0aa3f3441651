"""Convert the columns of a table to the inputs of an ONNX file: the columnar twin of `onnx_inputs.make_feeder`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnxruntime

from headrace.catalog.contract import Named, Text
from headrace_worker.runtimes import InputSchema
from headrace_worker.runtimes.arrow_columns import to_numbers
from headrace_worker.runtimes.input_arrays import is_numeric
from headrace_worker.runtimes.onnx_inputs import FLOAT_TENSORS, cast, inner_shape, is_only_feature, to_column
from headrace_worker.runtimes.table_input import make_number_table_stacker


def make_table_feeder(
    session: onnxruntime.InferenceSession, input_schema: InputSchema, features: Sequence[str] | None
) -> Callable[[Any], dict[str, Any]] | None:
    """Return a function that converts a RecordBatch to a session's inputs, for which `make_feeder` makes a feeder.

    `features` are the features of the inputs, in their order; None if they have the names of the inputs. Return
    None if the inputs are made of instances only.
    """
    inputs = session.get_inputs()
    stack_numbers = make_number_table_stacker(input_schema)
    first, kind, shape = inputs[0].name, inputs[0].type, inner_shape(inputs[0])
    if len(inputs) == 1 and isinstance(input_schema, Text):
        return lambda batch: {first: np.array(batch.column(0).to_pylist(), dtype=object).reshape(-1, *shape)}
    if len(inputs) == 1 and stack_numbers is not None and not is_only_feature(inputs[0], input_schema):
        return lambda batch: {first: cast(stack_numbers(batch), kind)}
    if not isinstance(input_schema, Named):
        return None
    by_name = {feature.name: feature for feature in input_schema.features}
    names = features or [node.name for node in inputs]
    if any(by_name[name].kind in {"datetime", "date"} for name in names):
        return None  # the file takes them as texts

    def convert(column: Any, name: str, tensor: str) -> Any:
        if tensor in FLOAT_TENSORS and is_numeric(by_name[name]):
            return cast(to_numbers(column, np.float64), tensor)
        return to_column(column.to_pylist(), tensor)

    def feed(batch: Any) -> dict[str, Any]:
        return {
            node.name: convert(batch.column(name), name, node.type).reshape(-1, *inner_shape(node))
            for name, node in zip(names, inputs, strict=True)
        }

    return feed
