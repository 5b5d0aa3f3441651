"""Instances are checked against the contract of a model before anything is enqueued."""

from __future__ import annotations

import collections
import difflib
import math
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.catalog.contract import Array, Contract, Feature, Kind, Named, Output, Text
from headrace.catalog.validation import check_instances, check_method
from headrace.errors import InvalidInput
from tests.support.costs import SLACK, processor_seconds


def contract(takes: Named | Array | Text) -> Contract:
    return Contract(model="m", version="3", input=takes, methods={"predict": Output(shape=())})


def named(**features: Kind) -> Contract:
    return contract(Named(features=tuple(Feature(name=name, kind=kind) for name, kind in features.items())))


def refuse(takes: Contract, *instances: Any) -> str:
    """Return the text of the error for these instances."""
    with pytest.raises(InvalidInput) as caught:
        check_instances(takes, list(instances))
    return str(caught.value)


def test_instances_that_fit_are_returned_unchanged():
    instances = [{"age": 41, "plan": "gold"}, {"age": 4.5, "plan": ""}]
    assert check_instances(named(age="number", plan="string"), instances) == instances


def test_an_empty_list_is_refused():
    assert "at least one" in refuse(named(age="number"))


def test_a_misspelt_feature_is_named_with_the_nearest_feature():
    assert "no feature 'agee' in the contract; did you mean 'age'?" in refuse(named(age="number"), {"agee": 1})


def test_a_missing_and_an_extra_feature_are_distinguished():
    text = refuse(named(age="number", plan="string"), {"plan": "x", "zzz": 1})
    assert "'age' is missing" in text
    assert "no feature 'zzz'" in text


def test_every_problem_names_its_instance():
    text = refuse(named(age="number"), {"age": 1}, {"age": "x"}, {"age": None})
    assert "instance 1: feature 'age' must be a number, got a string" in text
    assert "instance 2: feature 'age' must be a number, got a missing value" in text


def test_instances_can_have_numbers_of_the_caller():
    with pytest.raises(InvalidInput, match="instance 250:"):
        check_instances(named(age="number"), [{"age": "x"}], numbers=[250])


def test_an_error_names_five_problems_at_most():
    text = refuse(named(age="number"), *[{"age": "x"}] * 1000)
    assert text.count("instance ") == 5
    assert text.endswith("; ...")


def test_an_error_never_contains_a_value():
    secret = "hunter2-4711"
    for takes in (named(age="number"), contract(Array(shape=(2,))), contract(Text())):
        for instance in ({"age": secret}, {"age": [secret]}, [secret, secret], [[secret]], {secret: 1}, 4711.5):
            assert "4711" not in refuse(takes, instance).replace(f"'{secret}'", ""), (
                "a feature's name may be shown"
            )
    category = contract(Named(features=(Feature(name="plan", kind="category", categories=("a", "b")),)))
    assert secret not in refuse(category, {"plan": secret})


def test_a_feature_may_have_any_name():
    names = ["mean radius (cm)", "class", "", "größe", 'size "x"', "a\\b", "line\nbreak", "def", "f0"]
    takes = contract(Named(features=tuple(Feature(name=name, kind="number") for name in names)))
    instance = dict.fromkeys(names, 1.5)
    assert check_instances(takes, [instance]) == [instance]
    assert "is missing" in refuse(takes, {name: 1 for name in names if name != "größe"})


def test_missing_values_become_null_if_the_feature_is_nullable():
    takes = contract(Named(features=(Feature(name="age", kind="number", nullable=True),)))
    for missing in (None, math.nan, np.nan, np.float32("nan"), Decimal("NaN")):
        assert check_instances(takes, [{"age": missing}]) == [{"age": None}]


@pytest.mark.parametrize("kind", ["number", "integer", "boolean", "string", "category"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
def test_nan_infinity_and_null_are_refused_if_the_feature_is_not_nullable(kind: Kind, value: float | None):
    assert "feature 'x'" in refuse(named(x=kind), {"x": value})


def test_infinity_is_refused_even_if_the_feature_is_nullable():
    takes = contract(Named(features=(Feature(name="x", kind="number", nullable=True),)))
    assert "infinite" in refuse(takes, {"x": math.inf})


def test_numpy_and_decimal_values_are_numbers():
    for value in (np.float64(2.5), np.float32(2.5), Decimal("2.5")):
        (checked,) = check_instances(named(x="number"), [{"x": value}])
        assert float(checked["x"]) == 2.5
    assert check_instances(named(x="integer"), [{"x": np.int64(3)}, {"x": 3.0}]) == [{"x": 3}, {"x": 3}]
    assert check_instances(named(x="boolean"), [{"x": np.bool_(True)}]) == [{"x": True}]
    assert check_instances(contract(Array(shape=(2, 2))), [np.eye(2)]) == [[[1.0, 0.0], [0.0, 1.0]]]


def test_a_boolean_is_no_number_and_a_number_no_boolean():
    assert "got a boolean" in refuse(named(x="number"), {"x": True})
    assert "got a boolean" in refuse(named(x="integer"), {"x": False})
    assert "got a number" in refuse(named(x="boolean"), {"x": 1})


def test_a_number_beyond_64_bit_floats_is_refused():
    assert "larger than any 64-bit float" in refuse(named(x="number"), {"x": 10**400})


def test_an_unknown_category_is_refused_with_the_known_categories():
    takes = contract(Named(features=(Feature(name="plan", kind="category", categories=("gold", "silver")),)))
    assert "it knows gold, silver" in refuse(takes, {"plan": "tin"})


def test_a_long_list_of_categories_is_shortened():
    many = tuple(f"c{number}" for number in range(1000))
    takes = contract(Named(features=(Feature(name="plan", kind="category", categories=many),)))
    assert len(refuse(takes, {"plan": "tin"})) < 300


def test_a_category_1_is_not_a_category_true_whichever_was_checked_first():
    ones = contract(Named(features=(Feature(name="x", kind="category", categories=(1, 0)),)))
    truths = contract(Named(features=(Feature(name="x", kind="category", categories=(True, False)),)))
    for takes, good, bad in ((ones, 1, True), (truths, True, 1)):
        assert check_instances(takes, [{"x": good}]) == [{"x": good}]
        assert "does not know" in refuse(takes, {"x": bad})


def test_an_array_has_its_shape():
    takes = contract(Array(shape=(2, 3)))
    assert check_instances(takes, [[[1, 2, 3], [4, 5, 6]]]) == [[[1, 2, 3], [4, 5, 6]]]
    assert "a list of 2 x 3 values, got a list of 1" in refuse(takes, [[1, 2, 3]])
    assert "at [1]: must be a list of 3 values, got a list of 2" in refuse(takes, [[1, 2, 3], [4, 5]])


def test_values_that_are_no_object_list_or_text_are_refused():
    for takes in (named(x="number"), contract(Array(shape=(2,))), contract(Text())):
        for instance in (None, 7, b"bytes", object(), range(2), {1, 2, 3}, collections.deque([1, 2]), ()):
            assert "instance 0" in refuse(takes, instance)


def test_deep_nesting_is_refused_without_a_crash():
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    for takes, instance in ((named(x="number"), {"x": deep}), (contract(Array(shape=(1,))), deep)):
        assert "instance 0" in refuse(takes, instance)


def test_the_cost_of_refusing_unknown_features_grows_with_their_number():
    def cost(count: int) -> float:
        takes = named(**{f"feature_{number}": "number" for number in range(count)})  # type: ignore[arg-type]  # kinds
        instance = {f"other{number}": 1 for number in range(count)}
        return processor_seconds(lambda: refuse(takes, instance))

    assert cost(4000) < 8 * SLACK * cost(500)


def test_a_method_that_the_version_does_not_have_is_refused():
    assert check_method(named(x="number"), None) == "predict"
    with pytest.raises(InvalidInput, match=r"no method 'predict_proba'; it has predict"):
        check_method(named(x="number"), "predict_proba")


# msgspec decides which instances are valid. The functions below decide the same in plain Python.

_KINDS: list[Kind] = ["number", "integer", "boolean", "string", "category"]
_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(),
    st.floats(),
    st.sampled_from([1.0, 0.0, 2.5, 1e400, "a", "b", ""]),
    st.text(max_size=3),
    st.lists(st.integers(), max_size=2),
)
_CATEGORIES = st.none() | st.lists(
    st.sampled_from(["a", "b", 1, 0, True, False, 1.0, 2.5]), min_size=1, max_size=4
).map(tuple)


def _is_valid(feature: Feature, value: Any) -> bool:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return feature.nullable
    if isinstance(value, float) and math.isinf(value):
        return False
    match feature.kind:
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "integer":
            return (isinstance(value, int) and not isinstance(value, bool)) or (
                isinstance(value, float) and value.is_integer()
            )
        case "boolean":
            return isinstance(value, bool)
        case "string":
            return isinstance(value, str)
        case "category":
            if not isinstance(value, str | int | float):
                return False
            return feature.categories is None or any(
                value == category and isinstance(value, bool) == isinstance(category, bool)
                for category in feature.categories
            )


@st.composite
def _features(draw: st.DrawFn) -> tuple[Feature, ...]:
    names = draw(st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=4, unique=True))
    return tuple(
        Feature(
            name=name,
            kind=(kind := draw(st.sampled_from(_KINDS))),
            nullable=draw(st.booleans()),
            categories=draw(_CATEGORIES) if kind == "category" else None,
        )
        for name in names
    )


@settings(max_examples=300, deadline=None)
@given(features=_features(), data=st.data())
def test_the_check_agrees_with_a_plain_implementation(features: tuple[Feature, ...], data: Any):
    values = data.draw(st.lists(_VALUES, min_size=len(features), max_size=len(features)))
    instance = {feature.name: value for feature, value in zip(features, values, strict=True)}
    fits = all(_is_valid(feature, instance[feature.name]) for feature in features)
    try:
        (checked,) = check_instances(contract(Named(features=features)), [instance])
    except InvalidInput:
        assert not fits
    else:
        assert fits
        assert isinstance(checked, dict)
        for feature in features:
            value, sent = instance[feature.name], checked[feature.name]
            missing = value is None or (isinstance(value, float) and math.isnan(value))
            assert sent is None if missing else sent == value


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(_KINDS),
    nullable=st.booleans(),
    length=st.integers(0, 3),
    values=st.lists(_VALUES, max_size=3),
)
def test_an_array_is_valid_if_its_values_are(kind: Kind, nullable: bool, length: int, values: list[Any]):
    feature = Feature(name="x", kind=kind, nullable=nullable)
    fits = len(values) == length and all(_is_valid(feature, value) for value in values)
    try:
        check_instances(contract(Array(shape=(length,), kind=kind, nullable=nullable)), [values])
    except InvalidInput:
        assert not fits
    else:
        assert fits


# --- the cost of an error ---


@pytest.fixture
def comparisons(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of names that each search for a similar name compares."""
    counts: list[int] = []
    original = difflib.get_close_matches

    def get_close_matches(word: str, possibilities: list[str], **options: Any) -> list[str]:
        counts.append(len(possibilities))
        return original(word, possibilities, **options)

    monkeypatch.setattr(difflib, "get_close_matches", get_close_matches)
    return counts


def test_only_the_first_five_problems_search_for_a_similar_name(comparisons: list[int]):
    takes = named(**dict.fromkeys((f"feature_{number}" for number in range(1000)), "number"))
    text = refuse(takes, *[{f"featur_{number}": 1 for number in range(10_000)}] * 20)
    assert text.count("no feature") == 5
    assert text.endswith("; ...")
    assert len(comparisons) <= 5
    assert max(comparisons) <= 64


def test_the_listing_ends_inside_an_instance():
    takes = named(**dict.fromkeys((f"f{number}" for number in range(1000)), "number"))
    for instance in ({}, {f"f{number}": "Xyzzy" for number in range(1000)}, dict.fromkeys(range(1000), 1)):
        text = refuse(takes, instance)
        assert text.count("instance 0: ") == 5
        assert text.endswith("; ...")


def test_a_misspelt_feature_of_many_is_named_with_the_nearest_feature():
    takes = named(
        **dict.fromkeys((f"feature_{number}" for number in range(500)), "number"), monthly_charge="number"
    )
    assert "did you mean 'monthly_charge'?" in refuse(takes, {"montly_charge": 1})


# --- values that kombu's JSON marks with their type ---


@pytest.mark.parametrize(
    ("kind", "marker", "value", "read"),
    [
        ("string", "datetime", "2030-01-31T12:00:00+00:00", "2030-01-31T12:00:00+00:00"),
        ("string", "date", "2030-01-31", "2030-01-31"),
        ("category", "time", "12:00:00", "12:00:00"),
        ("string", "bytes", "gold", "gold"),
        ("string", "uuid", {"hex": "00000000000040008000000000000001"}, "00000000-0000-4000-8000-000000000001"),
        ("number", "decimal", "12.50", 12.5),
        ("integer", "decimal", "12", 12),
    ],
)
def test_a_typed_value_of_kombu_is_read(kind: Kind, marker: str, value: Any, read: Any):
    typed = {"__type__": marker, "__value__": value}
    assert check_instances(named(plan=kind), [{"plan": typed}]) == [{"plan": read}]
    assert check_instances(contract(Array(shape=(1,), kind=kind)), [[typed]]) == [[read]]
    if kind == "string":
        assert check_instances(contract(Text()), [typed]) == [read]


@pytest.mark.parametrize(
    "typed",
    [
        {"__type__": "decimal", "__value__": "twelve"},
        {"__type__": "decimal", "__value__": 12},
        {"__type__": "uuid", "__value__": {"hex": "12"}},
        {"__type__": "base64", "__value__": "AAAA"},
        {"__type__": "date", "__value__": "2030-01-31", "more": 1},
        {"__type__": ["date"], "__value__": "2030-01-31"},
    ],
)
def test_a_typed_value_that_cannot_be_read_is_an_object(typed: Any):
    for kind in ("number", "string"):
        assert "got an object" in refuse(named(plan=kind), {"plan": typed})


@pytest.mark.parametrize(
    ("schema", "instance"),
    [
        (Array(shape=(2,)), [[1, 2], [3, 4], [5, 6]]),
        (Array(shape=(2,)), np.ones((3, 2))),
        (Array(shape=(2, 2)), [[[1, 2], [3, 4]]] * 3),
        (Text(), ["rain", "wind", "sun"]),
    ],
)
def test_a_list_of_instances_in_the_place_of_an_instance_is_named(schema: Any, instance: Any):
    message = refuse(contract(schema), instance)
    assert "instance 0: is a list of 3 instances; for a job of several, use `instances=[...]`" in message


def test_a_list_that_holds_no_instances_is_described_as_before():
    assert "got a list of 3" in refuse(contract(Array(shape=(2,))), [1, 2, 3])
    assert "got a list of 1" in refuse(contract(Array(shape=(2, 2))), [[[1], [2]]])
