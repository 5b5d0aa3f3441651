"""Changes of a contract are described, and those that break producers are known."""

from __future__ import annotations

import difflib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.catalog.contract import Array, Contract, Feature, Kind, Named, Output, Text
from headrace.catalog.contract_diff import Change, compare_contracts, has_breaking
from headrace.catalog.validation import check_instances
from headrace.errors import InvalidInput

PREDICT = {"predict": Output(shape=())}


def contract(schema: Any = None, methods: dict[str, Output] | None = None) -> Contract:
    return Contract(model="churn", version="1", input=schema or Text(), methods=methods or PREDICT)


def named(*features: Feature) -> Contract:
    return contract(Named(features=features))


def feature(name: str = "age", kind: Kind = "number", **more: Any) -> Feature:
    return Feature(name=name, kind=kind, **more)


def describe_changes(old: Contract, new: Contract) -> list[tuple[bool, str]]:
    return [(change.breaking, change.text) for change in compare_contracts(old, new)]


def test_the_same_contract_of_another_version_changes_nothing() -> None:
    old = named(feature("age"), feature("plan", "category", categories=("gold", "basic")))
    new = Contract(model="churn", version="2", input=old.input, methods=old.methods)
    assert compare_contracts(old, new) == ()
    assert not has_breaking(())


def test_added_and_removed_features_break_producers() -> None:
    old, new = named(feature("age"), feature("plan", "string")), named(feature("age"), feature("zip", "integer"))
    assert describe_changes(old, new) == [
        (True, "feature 'plan' is removed; an instance that has it is refused"),
        (True, "feature 'zip' (integer) is new; an instance without it is refused"),
    ]


def test_a_renamed_feature_is_one_change() -> None:
    old = named(feature("age"), feature("planName", "string"), feature("x"))
    assert describe_changes(old, named(feature("age"), feature("plan_name", "string"), feature("x"))) == [
        (True, "feature 'planName' seems to be called 'plan_name' now")
    ]
    assert describe_changes(old, named(feature("age"), feature("tariff", "string"), feature("x")))[0][1].endswith(
        "seems to be called 'tariff' now"
    )
    assert len(compare_contracts(old, named(feature("age"), feature("plan_name", "boolean"), feature("x")))) == 2


def test_the_order_of_named_features_does_not_matter() -> None:
    assert (
        compare_contracts(named(feature("a"), feature("b", "string")), named(feature("b", "string"), feature("a")))
        == ()
    )


@pytest.mark.parametrize(
    ("old", "new", "breaking"),
    [
        ("integer", "number", False),
        ("number", "integer", True),
        ("string", "number", True),
        ("boolean", "integer", True),
        ("string", "category", False),
        ("boolean", "category", False),
        ("category", "string", True),
    ],
)
def test_a_kind_may_widen_and_not_narrow(old: Kind, new: Kind, breaking: bool) -> None:
    (change,) = compare_contracts(named(feature(kind=old)), named(feature(kind=new)))
    assert (change.subject, change.name, change.breaking) == ("kind", "age", breaking)
    assert ("refuses values that were accepted" in change.text) == breaking


def test_missing_values_may_be_allowed_and_not_forbidden() -> None:
    allowed, forbidden = named(feature(nullable=True)), named(feature())
    assert describe_changes(allowed, forbidden) == [(True, "feature 'age' must not be missing (null) any more")]
    assert describe_changes(forbidden, allowed) == [(False, "feature 'age' may be missing (null) now")]


def test_categories_may_be_added_and_not_removed() -> None:
    old = named(feature("plan", "category", categories=("gold", "basic")))
    new = named(feature("plan", "category", categories=("gold", "silver")))
    assert describe_changes(old, new) == [
        (True, "feature 'plan' no longer accepts basic"),
        (False, "feature 'plan' also accepts silver"),
    ]
    free = named(feature("plan", "category"))
    assert not has_breaking(compare_contracts(old, free))
    assert has_breaking(compare_contracts(free, old))


def test_a_category_one_is_not_a_category_true() -> None:
    integer, true = (named(feature("plan", "category", categories=(value,))) for value in (1, True))
    assert has_breaking(compare_contracts(integer, true))
    assert not has_breaking(compare_contracts(integer, named(feature("plan", "integer"))))
    assert has_breaking(compare_contracts(true, named(feature("plan", "integer"))))


def test_long_lists_of_categories_are_cut_short() -> None:
    old = named(feature("zip", "category", categories=tuple(range(40))))
    assert compare_contracts(old, named(feature("zip", "category", categories=(1,))))[0].text.endswith(
        " and 27 more"
    )


def test_lists_change_by_shape_kind_and_missing_values() -> None:
    old, new = contract(Array(shape=(30,), nullable=True)), contract(Array(shape=(28, 28), kind="integer"))
    assert describe_changes(old, new) == [
        (True, "instances are lists of 28 x 28 values, no longer of 30"),
        (True, "values must not be missing (null) any more"),
        (True, "values: number becomes integer, which refuses values that were accepted"),
    ]


def test_another_type_of_input_is_one_change() -> None:
    assert describe_changes(contract(Text()), contract(Array(shape=(3,)))) == [
        (True, "instances are lists of values, no longer texts")
    ]


def test_methods_may_be_added_and_not_removed_and_the_default_must_stay() -> None:
    both = {"predict": Output(shape=()), "predict_proba": Output(shape=(2,))}
    assert describe_changes(contract(), contract(methods=both)) == [(False, "method predict_proba is new")]
    assert describe_changes(contract(methods=both), contract()) == [(True, "method predict_proba is removed")]
    assert describe_changes(contract(methods=both), contract(methods=dict(reversed(both.items())))) == [
        (True, "a job that names no method runs predict_proba, no longer predict")
    ]


def test_outputs_keep_their_shape_and_their_classes() -> None:
    def proba(*classes: str) -> Contract:
        outputs = {"predict": Output(shape=(), classes=classes)}
        return contract(methods=outputs | {"predict_proba": Output(shape=(len(classes),), classes=classes)})

    assert describe_changes(proba("a", "b"), proba("a", "b", "c")) == [
        (True, "predict also predicts the classes c"),
        (True, "predict_proba returns a list of 3, no longer a list of 2"),
        (True, "predict_proba also predicts the classes c"),
    ]
    assert (False, "predict no longer predicts the classes c") in describe_changes(
        proba("a", "b", "c"), proba("a", "b")
    )
    assert describe_changes(proba("a", "b"), proba("b", "a")) == [
        (True, "predict_proba returns its classes in another order: b, a")
    ]
    numbers = contract()
    assert describe_changes(numbers, contract(methods={"predict": Output(shape=(), classes=("a",))})) == [
        (True, "predict returns the classes a, no longer numbers")
    ]


def test_breaking_changes_come_first() -> None:
    changes = compare_contracts(
        named(feature("a"), feature("b", nullable=True)), named(feature("a", nullable=True), feature("b"))
    )
    assert [change.breaking for change in changes] == [True, False]
    assert isinstance(changes[0], Change)


VALUES = st.sampled_from([None, 0, 1, 2, 1.5, 2.0, True, False, "a", "b", "c"])
CATEGORIES = st.none() | st.lists(
    st.sampled_from([0, 1, 2, 1.5, True, False, "a", "b"]), min_size=1, max_size=4
).map(tuple)
FEATURES = st.one_of(
    st.builds(feature, kind=st.sampled_from(["number", "integer", "boolean", "string"]), nullable=st.booleans()),
    st.builds(feature, kind=st.just("category"), nullable=st.booleans(), categories=CATEGORIES),
)


@settings(max_examples=300, deadline=None)
@given(FEATURES, FEATURES, VALUES)
def test_a_value_that_is_no_longer_accepted_is_always_a_breaking_change(
    old: Feature, new: Feature, value: Any
) -> None:
    def passes(accepted: Feature) -> bool:
        try:
            check_instances(named(accepted), [{"age": value}])
        except InvalidInput:
            return False
        return True

    if passes(old) and not passes(new):
        assert has_breaking(compare_contracts(named(old), named(new)))


def test_contracts_of_thousands_of_other_features_are_compared_without_comparing_their_names(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(difflib, "SequenceMatcher", None)
    old, new = (
        named(*(Feature(name=f"{prefix}_{number}", kind="number") for number in range(2000)))
        for prefix in ("old", "new")
    )
    assert {change.subject for change in compare_contracts(old, new)} == {"feature renamed"}
