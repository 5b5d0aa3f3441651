"""MLflow's forms and CSV: any body is instances, or refused."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.catalog.contract import Array, Contract, Feature, InputSchema, Named, Output, Text, Tokens
from headrace_gateway.invocation_forms import decode_invocation
from headrace_gateway.problems import Problem
from headrace_gateway.tables import read_csv

NAMED = Named(
    features=(
        Feature(name="a", kind="number", nullable=True),
        Feature(name="b", kind="string"),
        Feature(name="c", kind="integer", optional=True),
    )
)
SCHEMAS: list[InputSchema] = [NAMED, Array(shape=(2,)), Array(shape=()), Array(shape=(2, 2)), Text(), Tokens()]


def contract(schema: InputSchema) -> Contract:
    return Contract(model="m", version="1", input=schema, methods={"predict": Output(shape=())})


def instances(body: Any, schema: InputSchema = NAMED) -> list[Any]:
    return decode_invocation(json.dumps(body).encode()).make_instances(contract(schema))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.sampled_from(["", "a", "1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=8,
)
TABLES = st.lists(st.lists(JSON, max_size=3), max_size=3)
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "dataframe_split": st.fixed_dictionaries(
            {"data": TABLES},
            optional={"columns": st.lists(st.sampled_from(["a", "b", "c", "d", 0, 1]), max_size=3), "index": JSON},
        ),
        "dataframe_records": st.lists(st.dictionaries(st.sampled_from("abcd"), JSON, max_size=3), max_size=3),
        "instances": JSON | TABLES,
        "inputs": JSON,
        "params": st.none() | st.dictionaries(st.sampled_from(["method", "version"]), JSON, max_size=1),
    },
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(BODIES, st.sampled_from(SCHEMAS))
def test_any_body_is_instances_or_refused(body: Any, schema: InputSchema) -> None:
    with suppress(Problem):
        assert isinstance(instances(body, schema), list)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet='abc,"\n\r1.\x00é', max_size=24), st.booleans(), st.sampled_from(SCHEMAS))
def test_any_csv_is_instances_or_refused(text: str, header: bool, schema: InputSchema) -> None:
    with suppress(Problem):
        assert read_csv(contract(schema), text.encode(), header=header)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"dataframe_split": {"columns": [0, 1, 2], "data": [[1, "x", 2]]}}, [{"a": 1, "b": "x", "c": 2}]),
        ({"dataframe_split": {"data": [[1, "x", 2]]}}, [{"a": 1, "b": "x", "c": 2}]),
        ({"dataframe_split": {"columns": ["b", "d"], "data": [["x", 2]]}}, [{"b": "x", "d": 2}]),
        ({"dataframe_split": {"columns": ["b", "d", "a"], "data": [["x", 2, 3]]}}, [{"b": "x", "a": 3}]),
        (
            {"dataframe_records": [{"a": 1, "b": "x", "d": 2}, {"a": 1, "d": 2}]},
            [{"a": 1, "b": "x"}, {"a": 1, "d": 2}],
        ),
        ({"inputs": {"a": 1, "b": "x"}}, [{"a": 1, "b": "x"}]),
        ({"inputs": {"a": [[1], [2]], "b": ["x", "y"]}}, [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]),
        ({"inputs": [[1, "x", 2]]}, [{"a": 1, "b": "x", "c": 2}]),
    ],
)
def test_tables_become_objects_of_the_features(body: Any, expected: list[Any]) -> None:
    assert instances(body) == expected


@pytest.mark.parametrize(
    ("schema", "body", "expected"),
    [
        (Array(shape=(2,)), {"dataframe_split": {"columns": ["x", "y"], "data": [[1, 2]]}}, [[1, 2]]),
        (Array(shape=(2,)), {"dataframe_records": [{"x": 1, "y": 2}]}, [[1, 2]]),
        (Array(shape=(2,)), {"inputs": {"x": [1, 2], "y": [3, 4]}}, [[1, 3], [2, 4]]),
        (Array(shape=()), {"dataframe_records": [{"x": 1}]}, [1]),
        (Text(), {"dataframe_split": {"columns": ["x"], "data": [["a"], ["b"]]}}, ["a", "b"]),
        (Text(), {"inputs": ["a", "b"]}, ["a", "b"]),
        (Text(), {"inputs": "a"}, ["a"]),
        (Tokens(), {"instances": [["a", "b"]]}, [["a", "b"]]),
    ],
)
def test_other_contracts_take_lists_and_texts(schema: InputSchema, body: Any, expected: list[Any]) -> None:
    assert instances(body, schema) == expected


def test_cells_of_a_csv_are_read_by_the_kinds_of_the_features() -> None:
    text = b"\xef\xbb\xbfid,b,a,c\r\n7,007,,3\r\n\r\n8,x,1e3,4.0\r\n"
    assert read_csv(contract(NAMED), text) == [{"b": "007", "a": None, "c": 3}, {"b": "x", "a": 1000.0, "c": 4.0}]
    assert read_csv(contract(Array(shape=(2,))), b"1,2\n3,4\n", header=False) == [[1.0, 2.0], [3.0, 4.0]]
    assert read_csv(contract(Text()), b'text\n"a, b"\n') == ["a, b"]
