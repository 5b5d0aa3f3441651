"""An instance with typical values fits its contract, shows what is frequent, and nothing that is private."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.catalog.contract import Array, Contract, Feature, InputSchema, Named, Output, Text, Tokens
from headrace.catalog.typical import typical_instance
from headrace.catalog.validation import check_instances

ROWS = [
    {"age": 41.0, "plan": "gold", "name": "Ann", "card": "4711"},
    {"age": 23.5, "plan": "gold", "name": "Bob", "card": "4711"},
    {"age": 67.0, "plan": None, "name": "Cleo", "card": "4711"},
]
CUSTOMER = Named(
    features=(
        Feature(name="age", kind="number"),
        Feature(name="plan", kind="string", nullable=True),
        Feature(name="name", kind="string"),
        Feature(name="card", kind="string", redact=True),
    )
)


def test_it_has_medians_and_frequent_texts_but_no_rare_and_no_redacted_text():
    assert typical_instance(CUSTOMER, ROWS) == {"age": 41, "plan": "gold", "name": "text", "card": "text"}


def test_an_array_has_the_median_of_each_place():
    assert typical_instance(Array(shape=(2, 2)), [[[1, 5], [0.5, 0]], [[2, 6], [0.5, 1]]]) == [[1, 5], [0.5, 0]]


def test_a_redacted_array_shows_nothing_of_the_rows():
    assert typical_instance(Array(shape=(2,), redact=True), [[7, 8], [7, 8]]) == [1.5, 1.5]


def test_a_text_is_never_one_of_the_rows():
    assert typical_instance(Text(), ["my secret", "my secret"]) == "a text"


def test_an_image_is_too_long_for_an_example():
    assert typical_instance(Array(shape=(28, 28, 3))) is None


@pytest.mark.parametrize("rows", [(), ROWS])
def test_it_fits_the_contract_with_and_without_rows(rows: Any):
    fits(CUSTOMER, typical_instance(CUSTOMER, rows))


@pytest.mark.parametrize(
    "schema",
    [
        Named(features=(Feature(name="at", kind="datetime", dtype="datetime64[us, UTC]"),)),
        Named(features=(Feature(name="at", kind="datetime"), Feature(name="day", kind="date"))),
        Named(features=(Feature(name="kind", kind="category", categories=(False, 2.5)),)),
        Named(
            features=(Feature(name="kind", kind="category"), Feature(name="more", kind="number", optional=True))
        ),
        Named(features=(Feature(name="count", kind="integer"), Feature(name="is_new", kind="boolean"))),
        Array(shape=(3,), kind="integer"),
        Tokens(),
        Text(),
    ],
    ids=str,
)
def test_it_fits_every_kind_of_contract(schema: InputSchema):
    fits(schema, typical_instance(schema))


def fits(schema: InputSchema, instance: Any) -> None:
    contract = Contract(model="m", version="1", input=schema, methods={"predict": Output(shape=())})
    assert check_instances(contract, [instance]) == [instance]
