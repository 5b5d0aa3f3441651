"""The JSON schemas of a model: whatever they accept, the check of instances accepts, and the other way round."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from headrace.catalog.contract import Array, Contract, Feature, InputSchema, Named, Output, Text, Tokens
from headrace.catalog.validation import check_instances
from headrace.errors import InvalidInput
from headrace_gateway.openapi.model_schemas import example_instance, instance_schema, predictions_schema

FEATURES = Named(
    features=(
        Feature(name="age (years)", kind="number"),
        Feature(name="children", kind="integer", nullable=True),
        Feature(name="is_member", kind="boolean"),
        Feature(name="plan", kind="category", categories=("basic", "gold"), nullable=True),
        Feature(name="code", kind="string", optional=True),
    )
)
SCHEMAS = (FEATURES, Array(shape=(2, 2), nullable=True), Array(shape=(3,), kind="integer"), Text(), Tokens())
#: Values of every JSON type, among them those that a schema may take for another type.
VALUES = st.sampled_from([None, True, False, 0, 1, -7, 2.5, 1e300, "", "basic", "gold", "12", [], [1], {}])
INSTANCES = st.one_of(
    st.fixed_dictionaries(
        {"age (years)": VALUES, "children": VALUES, "is_member": VALUES, "plan": VALUES},
        optional={"code": VALUES, "other": VALUES},
    ),
    st.lists(st.lists(VALUES, min_size=1, max_size=3), min_size=1, max_size=3),
    st.lists(VALUES, max_size=3),
    VALUES,
)


def contract(schema: InputSchema, example: Any = None, **methods: Output) -> Contract:
    methods = methods or {"predict": Output(shape=())}
    return Contract(model="m", version="1", input=schema, methods=methods, example=example)


def accepts(schema: dict[str, Any], value: Any) -> bool:
    return Draft202012Validator(schema).is_valid(value)


def fits(schema: InputSchema, instance: Any) -> bool:
    try:
        check_instances(contract(schema), [instance])
    except InvalidInput:
        return False
    return True


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: type(schema).__name__)
def test_a_schema_accepts_what_the_check_accepts_and_nothing_else(schema: InputSchema):
    @settings(max_examples=300, deadline=None)
    @given(INSTANCES)
    def check(instance: Any) -> None:
        assert accepts(instance_schema(schema), instance) == fits(schema, instance)

    check()


@pytest.mark.parametrize(("text", "kind"), [("2026-01-02T03:04:05.12", "datetime"), ("2026-01-02", "date")])
def test_a_time_that_a_schema_accepts_fits(text: str, kind: Any):
    schema = Named(features=(Feature(name="at", kind=kind),))
    assert accepts(instance_schema(schema), {"at": text})
    assert fits(schema, {"at": text})


def test_a_time_with_a_zone_is_no_time_without_one():
    schema = Named(features=(Feature(name="at", kind="datetime"),))
    assert not accepts(instance_schema(schema), {"at": "2026-01-02T03:04:05Z"})


def test_a_schema_is_valid_and_has_no_pattern_that_only_python_knows():
    schema = instance_schema(Named(features=(*FEATURES.features, Feature(name="at", kind="datetime"))))
    Draft202012Validator.check_schema(schema)
    assert b"\\\\Z" not in msgspec.json.encode(schema)


def test_categories_of_any_type_are_listed():
    schema = Named(features=(Feature(name="rate", kind="category", categories=(0.5, True)),))
    assert instance_schema(schema)["properties"]["rate"] == {"enum": [0.5, True]}


def test_the_example_is_that_of_the_contract_or_one_that_fits():
    assert example_instance(contract(Text(), example="typical")) == "typical"
    assert fits(FEATURES, example_instance(contract(FEATURES)))


def test_predictions_are_typed_by_method():
    labels = ("no", "yes")
    methods = {"predict": Output(shape=(), classes=labels), "predict_proba": Output(shape=(2,), classes=labels)}
    schema = predictions_schema(contract(Text(), **methods))
    assert accepts(schema, ["no", "yes"])
    assert accepts(schema, [[0.25, 0.75]])
    assert not accepts(schema, ["maybe"])
    assert not accepts(schema, [[0.25, 0.5, 0.25]])


def test_numbers_that_are_not_finite_are_null_in_predictions():
    schema = predictions_schema(contract(Text(), predict_log_proba=Output(shape=(2,), classes=(0, 1))))
    assert accepts(schema, [[None, 0.0]])


def test_predictions_of_unknown_type_are_only_typed_by_their_depth():
    schema = predictions_schema(contract(Text(), transform=Output(shape=(3,))))
    assert accepts(schema, [[1, "a", None]])
    assert not accepts(schema, [1])
