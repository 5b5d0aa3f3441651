"""Tensors as bytes and as JSON: what one writes the other reads, and hostile bytes end as a Problem."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.catalog.contract import Array, Contract, Feature, Named, Output, Text, Tokens
from headrace.errors import InvalidInput
from headrace_gateway.open_inference.instances import make_instances
from headrace_gateway.open_inference.outputs import make_tensor
from headrace_gateway.open_inference.requests import InferRequest, decode_request
from headrace_gateway.open_inference.tensors import DATATYPES, Tensor, decode_bytes, encode_bytes
from headrace_gateway.problems import Problem

FLOATS = st.none() | st.floats(allow_nan=False)
OUTPUTS = {"predict": Output(shape=())}


def decode(body: Any) -> InferRequest:
    return decode_request(json.dumps(body).encode(), None, max_values=100)


def contract(schema: Any) -> Contract:
    return Contract(model="m", version="1", input=schema, methods=OUTPUTS)


@given(st.lists(FLOATS))
def test_floats_and_missing_values_survive_the_binary_form(values: list[float | None]) -> None:
    data = encode_bytes("FP64", values)
    assert decode_bytes("x", "FP64", len(values), memoryview(data)) == values
    expected = np.array(values, dtype=float)
    assert np.frombuffer(data).tobytes() == expected.tobytes() or any(value is None for value in values)


@given(st.lists(st.text()))
def test_texts_survive_the_binary_form(values: list[str]) -> None:
    data = memoryview(encode_bytes("BYTES", values))
    assert decode_bytes("x", "BYTES", len(values), data) == values


@pytest.mark.parametrize("datatype", sorted(DATATYPES - {"BYTES", "BF16", "BOOL"}))
def test_numbers_are_read_as_numpy_writes_them(datatype: str) -> None:
    dtype = np.dtype(datatype.replace("FP", "float").lower()).newbyteorder("<")
    bounds = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    values = np.array([bounds.min, 0, 1, bounds.max], dtype=dtype)
    assert decode_bytes("x", datatype, 4, memoryview(values.tobytes())) == values.tolist()


def test_bf16_is_the_upper_half_of_a_float() -> None:
    halves = np.array([1.5, -2.0, np.nan], dtype="<f4").view("<u4") >> 16
    data = memoryview(halves.astype("<u2").tobytes())
    assert decode_bytes("x", "BF16", 3, data) == [1.5, -2.0, None]


def test_texts_that_are_fewer_or_more_than_the_shape_says_are_refused() -> None:
    data = memoryview(encode_bytes("BYTES", ["a", "b"]))
    for count in (1, 3):
        with pytest.raises(Problem, match=f"is not {count} values"):
            decode_bytes("x", "BYTES", count, data)


@given(st.binary(max_size=64), st.sampled_from(sorted(DATATYPES)), st.integers(0, 2**63))
def test_any_bytes_are_values_or_a_problem(data: bytes, datatype: str, count: int) -> None:
    with suppress(Problem):
        assert len(decode_bytes("x", datatype, count, memoryview(data))) == count


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=8,
)
SHAPES = st.lists(st.integers(-1, 5) | st.integers(), max_size=4)
INPUTS = st.fixed_dictionaries(
    {"name": st.sampled_from("ab"), "shape": SHAPES, "datatype": st.sampled_from([*sorted(DATATYPES), "X"])},
    optional={
        "data": JSON | st.lists(st.integers(0, 1), max_size=6),
        "parameters": st.none() | st.dictionaries(st.sampled_from(["binary_data_size", "content_type"]), JSON),
    },
)
BODIES = st.fixed_dictionaries(
    {"inputs": st.lists(INPUTS, max_size=3)},
    optional={
        "id": JSON,
        "parameters": st.none() | st.dictionaries(st.sampled_from(["timeout", "priority"]), JSON),
        "outputs": st.none() | st.lists(st.fixed_dictionaries({"name": st.text(max_size=2)}), max_size=2),
    },
)
SCHEMAS = [
    Named(features=(Feature(name="a", kind="number"), Feature(name="b", kind="string"))),
    Array(shape=(2,)),
    Array(shape=()),
    Array(shape=(2, 2)),
    Text(),
    Tokens(),
]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(BODIES, st.binary(max_size=24), st.integers(-2, 2), st.sampled_from(SCHEMAS))
def test_any_request_is_instances_or_refused(body: Any, data: bytes, shift: int, schema: Any) -> None:
    text = json.dumps(body).encode()
    with suppress(Problem, InvalidInput):
        request = decode_request(text + data, str(len(text) + shift) if data else None, max_values=100)
        assert len(make_instances(contract(schema), request.inputs)) == request.inputs[0].shape[0]


def test_a_missing_value_is_read_from_json_as_python_writes_it() -> None:
    body = {
        "inputs": [{"name": "NaN", "shape": [2, 1], "datatype": "FP64", "data": [math.nan, 1]}],
        "id": "NaN \\",
    }
    request = decode(body)
    assert (request.id, request.inputs) == ("NaN \\", [Tensor("NaN", "FP64", (2, 1), [None, 1.0])])


def test_texts_of_mlservers_content_types_are_decoded() -> None:
    entry = {
        "name": "plan",
        "shape": [2],
        "datatype": "BYTES",
        "parameters": {"content_type": "base64"},
        "data": ["Z29sZA==", None],
    }
    assert decode({"inputs": [entry]}).inputs[0].values == ["gold", None]
    entry["data"] = ["Z29sZA"]
    entry["shape"] = [1]
    with pytest.raises(Problem, match="value 0 is not base64"):
        decode({"inputs": [entry]})
    entry["parameters"], entry["shape"] = {"content_type": "pd_json"}, [3, 1]
    entry["data"] = ['"gold"', "3", "null"]
    assert decode({"inputs": [entry]}).inputs[0].values == ["gold", 3, None]
    entry["data"] = ["3", "[" * 100_000, "gold"]
    with pytest.raises(Problem, match="value 1 is not pd_json"):
        decode({"inputs": [entry]})


@pytest.mark.parametrize(
    ("schema", "inputs", "instances"),
    [
        (
            SCHEMAS[0],
            [Tensor("b", "BYTES", (2,), ["x", None]), Tensor("a", "FP64", (2, 1), [1.0, 2.0])],
            [{"b": "x", "a": 1.0}, {"b": None, "a": 2.0}],
        ),
        (SCHEMAS[0], [Tensor("input-0", "FP32", (2, 2), [1, 2, 3, 4])], [{"a": 1, "b": 2}, {"a": 3, "b": 4}]),
        (SCHEMAS[1], [Tensor("0", "FP64", (1, 2), [1, 2])], [[1, 2]]),
        (SCHEMAS[1], [Tensor("0", "FP64", (2,), [1, 2]), Tensor("1", "INT8", (2, 1), [3, 4])], [[1, 3], [2, 4]]),
        (SCHEMAS[2], [Tensor("0", "FP64", (2, 1), [1, 2])], [1, 2]),
        (SCHEMAS[3], [Tensor("0", "FP64", (1, 2, 2), [1, 2, 3, 4])], [[[1, 2], [3, 4]]]),
        (SCHEMAS[4], [Tensor("0", "BYTES", (2,), ["a", "b"])], ["a", "b"]),
        (SCHEMAS[5], [Tensor("0", "BYTES", (2, 2), ["a", "b", "c", None])], [["a", "b"], ["c"]]),
    ],
)
def test_the_contract_says_how_tensors_become_instances(
    schema: Any, inputs: list[Tensor], instances: list[Any]
) -> None:
    assert make_instances(contract(schema), inputs) == instances


@pytest.mark.parametrize(
    ("schema", "inputs", "message"),
    [
        (
            SCHEMAS[0],
            [Tensor("x", "FP64", (1, 3), [1, 2, 3])],
            "has rows of 3 values, and .* 2 features",
        ),
        (SCHEMAS[0], [Tensor("a", "FP64", (1, 2), [1, 2])], r"input 'a' must hold a value for each instance"),
        (SCHEMAS[3], [Tensor("x", "FP64", (1, 4), [1, 2, 3, 4])], "must have 3 dimensions, .* 2 x 2; it has 2"),
        (
            SCHEMAS[3],
            [Tensor(n, "FP64", (1,), [1]) for n in "xy"],
            "takes one input, .* has 2 inputs",
        ),
        (SCHEMAS[4], [Tensor(n, "BYTES", (1,), ["x"]) for n in "xy"], "takes texts, which are one input"),
        (
            SCHEMAS[5],
            [Tensor("x", "BYTES", (1,), ["x"])],
            "must have 2 dimensions",
        ),
    ],
)
def test_tensors_of_another_form_are_refused(schema: Any, inputs: list[Tensor], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        make_instances(contract(schema), inputs)


@pytest.mark.parametrize(
    ("predictions", "tensor"),
    [
        ([1, 2], Tensor("p", "INT64", (2,), [1, 2])),
        ([1, 2.5, None], Tensor("p", "FP64", (3,), [1, 2.5, None])),
        ([True, False], Tensor("p", "BOOL", (2,), [True, False])),
        (["a", None], Tensor("p", "BYTES", (2,), ["a", None])),
        ([[1.0, 2.0], [3.0, 4.0]], Tensor("p", "FP64", (2, 2), [1.0, 2.0, 3.0, 4.0])),
        ([["a", "b"]], Tensor("p", "BYTES", (1, 2), ["a", "b"])),
        ([2**63], Tensor("p", "FP64", (1,), [2**63])),
        ([[1.0], [2.0, 3.0]], Tensor("p", "BYTES", (2,), ["[1.0]", "[2.0,3.0]"])),
        ([{"indices": [1], "values": [0.5]}], Tensor("p", "BYTES", (1,), ['{"indices":[1],"values":[0.5]}'])),
        ([["a", 1]], Tensor("p", "BYTES", (1,), ['["a",1]'])),
        ([[]], Tensor("p", "BYTES", (1,), ["[]"])),
    ],
)
def test_predictions_become_a_tensor_of_the_type_of_their_values(predictions: list[Any], tensor: Tensor) -> None:
    assert make_tensor("p", predictions) == tensor
