"""An error about instances names each value that does not fit as a JSON pointer too."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from headrace.catalog.contract import Array, Contract, Feature, InputSchema, Named, Output, Text, Tokens
from headrace.catalog.validation import check_instances
from headrace.errors import InvalidInput, UnknownModel

CUSTOMER = Named(features=(Feature(name="age", kind="number"), Feature(name="a/b~c", kind="string")))


def refuse(schema: InputSchema, *instances: Any, numbers: range | None = None) -> InvalidInput:
    """Return the error about instances."""
    contract = Contract(model="m", version="3", input=schema, methods={"predict": Output(shape=())})
    with pytest.raises(InvalidInput) as caught:
        check_instances(contract, list(instances), numbers=numbers)
    return caught.value


def test_a_feature_is_named_by_instance_and_name():
    error = refuse(CUSTOMER, {"age": 1, "a/b~c": ""}, {"age": "x", "a/b~c": ""})
    assert error.problems == (("/instances/1/age", "must be a number, got a string"),)
    assert str(error) == "m@3: instance 1: feature 'age' must be a number, got a string"


def test_a_name_is_escaped_in_its_pointer():
    assert refuse(CUSTOMER, {"age": 1}).problems == (("/instances/0/a~1b~0c", "is missing"),)


def test_a_feature_that_the_contract_lacks_is_named_where_it_stands():
    error = refuse(CUSTOMER, {"agee": 1, "a/b~c": ""})
    assert error.problems == (("/instances/0/agee", "no feature 'agee' in the contract; did you mean 'age'?"),)


def test_a_name_of_any_length_is_not_repeated():
    ((pointer, _),) = refuse(CUSTOMER, {"age": 1, "a/b~c": "", "x" * 10_000: 1}).problems
    assert pointer == "/instances/0"


@pytest.mark.parametrize(
    ("schema", "instance", "pointer"),
    [
        (CUSTOMER, [1], "/instances/0"),
        (Array(shape=(2, 2)), [[1, 2], [3, "x"]], "/instances/0/1/1"),
        (Array(shape=(2, 2)), [[1, 2], [3]], "/instances/0/1"),
        (Text(), 3, "/instances/0"),
        (Tokens(), ["a", 3], "/instances/0/1"),
    ],
)
def test_the_pointer_leads_to_the_innermost_value(schema: InputSchema, instance: Any, pointer: str):
    assert [path for path, _ in refuse(schema, instance).problems] == [pointer]


def test_instances_of_a_chunk_have_the_numbers_of_the_call():
    error = refuse(Text(), "", 3, numbers=range(250, 252))
    assert [pointer for pointer, _ in error.problems] == ["/instances/251"]


def test_problems_are_those_of_the_message():
    error = refuse(Text(), *range(10))
    assert len(error.problems) == str(error).count("must be a string") == 5


def test_a_job_without_instances_points_at_their_list():
    assert [pointer for pointer, _ in refuse(Text()).problems] == ["/instances"]


def test_no_text_and_no_pointer_repeats_a_value():
    error = refuse(CUSTOMER, {"age": "secret", "a/b~c": ["secret"]})
    assert "secret" not in repr(error.problems)


@pytest.mark.parametrize("kind", [InvalidInput, UnknownModel])
def test_the_problems_outlive_a_pickle_and_a_copy(kind: type[InvalidInput]):
    error = kind("m", problems=[("/instances/0", "is missing")])
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (type(twin), twin.args, twin.problems) == (kind, error.args, error.problems)


def test_an_error_about_something_else_has_none():
    assert InvalidInput("`expires` is in the past").problems == ()
