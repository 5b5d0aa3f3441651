"""`headrace submit` takes a JSON value as one instance, or as a list of them."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.catalog.contract import Array, Contract, InputSchema, Output, Text, Tokens
from headrace.cli.submit import to_instances


@pytest.mark.parametrize(
    ("takes", "value", "instances"),
    [
        (Tokens(), ["rain", "wind"], [["rain", "wind"]]),
        (Tokens(), [], [[]]),
        (Tokens(), [["rain", "wind"], []], [["rain", "wind"], []]),
        (Text(), ["rain", "wind"], ["rain", "wind"]),
        (Array(shape=(2,)), [1, 2], [[1, 2]]),
    ],
)
def test_a_list_of_strings_is_one_instance_for_a_model_of_tokens(
    takes: InputSchema, value: Any, instances: list[Any]
) -> None:
    contract = Contract(model="m", version="1", input=takes, methods={"predict": Output(shape=())})
    assert to_instances(contract, value) == instances
