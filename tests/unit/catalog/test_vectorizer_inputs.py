"""Contracts of vectorizers: features that an instance may leave out, and lists of tokens."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from headrace.catalog.contract import Array, Contract, Feature, InputSchema, Named, Output, Text, Tokens
from headrace.catalog.contract_diff import compare_contracts
from headrace.catalog.validation import check_instances
from headrace.errors import InvalidInput

AREA, CITY = Feature(name="area", kind="number"), Feature(name="city", kind="string", optional=True)


def contract(takes: InputSchema) -> Contract:
    return Contract(model="m", version="3", input=takes, methods={"predict": Output(shape=())})


def named(*features: Feature) -> Contract:
    return contract(Named(features=features))


def refuse(takes: Contract, *instances: Any) -> str:
    """Return the text of the error for these instances."""
    with pytest.raises(InvalidInput) as caught:
        check_instances(takes, list(instances))
    return str(caught.value)


def changes(old: Contract, new: Contract) -> list[tuple[bool, str]]:
    return [(change.breaking, change.text) for change in compare_contracts(old, new)]


@pytest.mark.parametrize("name", ["city", 'a "city"'])
def test_an_optional_feature_stays_absent_and_is_checked_where_it_is_present(name: str) -> None:
    takes = named(AREA, Feature(name=name, kind="string", optional=True))
    instances = [{"area": 1}, {"area": 2.5, name: "Oslo"}, {"area": 3.0}]
    assert check_instances(takes, instances) == instances
    assert f"feature {name!r} must be a string, got a number" in refuse(takes, {"area": 1, name: 2})
    assert f"feature {name!r} must be a string, got a missing value" in refuse(takes, {"area": 1, name: None})


def test_an_optional_feature_may_precede_one_that_is_not() -> None:
    takes = named(CITY, AREA)
    assert check_instances(takes, [{"area": 1}]) == [{"area": 1}]
    assert refuse(takes, {"city": "Oslo"}) == "m@3: instance 0: feature 'area' is missing"


def test_other_values_of_an_instance_that_lacks_keys_are_coerced() -> None:
    assert check_instances(named(AREA, CITY), [{"area": np.float64(1.5)}]) == [{"area": 1.5}]


def test_a_key_that_is_no_feature_is_refused_with_the_nearest_feature() -> None:
    assert "instance 1: no feature 'citi' in the contract; did you mean 'city'?" in refuse(
        named(AREA, CITY), {"area": 1}, {"area": 1, "citi": "Oslo"}
    )


def test_an_instance_may_be_empty_if_all_features_are_optional() -> None:
    assert check_instances(named(CITY), [{}]) == [{}]


def test_a_contract_of_an_earlier_version_has_no_optional_features() -> None:
    stored = b'{"type":"named","features":[{"name":"area","kind":"number"}]}'
    assert msgspec.json.decode(stored, type=InputSchema) == Named(features=(AREA,))
    assert msgspec.json.encode(Named(features=(AREA,))) == stored


def test_a_feature_may_become_optional_and_not_required() -> None:
    required = msgspec.structs.replace(CITY, optional=False)
    assert changes(named(required), named(CITY)) == [(False, "feature 'city' may be left out now")]
    assert changes(named(CITY), named(required)) == [(True, "feature 'city' must not be left out any more")]
    assert changes(named(AREA), named(AREA, CITY)) == [
        (False, "feature 'city' (string) is new; an instance may leave it out")
    ]


def test_lists_of_strings_of_any_length_are_tokens() -> None:
    instances = [["rain", "and", "wind"], [], ["Straße", ""]]
    assert check_instances(contract(Tokens()), instances) == instances
    assert check_instances(contract(Tokens()), [np.array(["a", "b"]), ("c",)]) == [["a", "b"], ("c",)]


@pytest.mark.parametrize(
    ("instance", "problem"),
    [
        ("rain and wind", "must be a list of strings, got a string; split it into tokens"),
        ({"rain": 1}, "must be a list of strings, got an object"),
        (None, "must be a list of strings, got null"),
        (["rain", 1], "at [1]: must be a string, got a number"),
        (["rain", None], "at [1]: must be a string, got null"),
        ([["rain"]], "at [0]: must be a string, got a list of 1"),
    ],
)
def test_what_is_no_list_of_strings_is_refused_by_row_and_place(instance: Any, problem: str) -> None:
    assert refuse(contract(Tokens()), ["sun"], instance) == f"m@3: instance 1: {problem}"


def test_hostile_lists_are_refused_at_the_first_value_that_is_no_string() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert refuse(contract(Tokens()), deep) == "m@3: instance 0: at [0]: must be a string, got a list of 1"
    huge = ["x"] * 300_000
    assert refuse(contract(Tokens()), [*huge, 1]) == "m@3: instance 0: at [300000]: must be a string, got a number"
    assert refuse(contract(Tokens()), *[[1]] * 100_000).count("must be a string") == 5


def test_tokens_are_another_input_than_texts_and_lists() -> None:
    assert changes(contract(Tokens()), contract(Tokens())) == []
    assert changes(contract(Text()), contract(Tokens())) == [
        (True, "instances are lists of strings of any length, no longer texts")
    ]
    assert changes(contract(Tokens()), contract(Array(shape=(2,), kind="string"))) == [
        (True, "instances are lists of values, no longer lists of strings of any length")
    ]
