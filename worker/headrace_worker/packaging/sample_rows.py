"""Generate instances for trials of runtimes from a contract and an example, within its ranges and slightly beyond.

They are the same each time for the same model, so that a result can be reproduced.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from headrace.catalog.contract import Array, Feature, Named, Text, Tokens
from headrace.catalog.datetimes import parse_datetime
from headrace.wire.message import Instance
from headrace_worker.runtimes import InputSchema

#: The probability that a nullable value is missing, and that a value is repeated from the example.
_MISSING, _REPEATED = 0.1, 0.3
#: How far numbers may exceed the example's range, as a fraction of that range.
_BEYOND_RANGE = 0.1
#: The probability that a number is whole where all numbers of the example are: they are mostly counts and codes.
_WHOLE = 0.875
_UNSEEN_TEXT = "a category that was never seen"


def generate_instances(input_schema: InputSchema, example: Sequence[Any], count: int) -> list[Instance]:
    """Generate instances that fit a schema and resemble the example. A model may still refuse one."""
    generator = random.Random(7)  # noqa: S311  # trials, not secrets
    match input_schema:
        case Named(features=features):
            columns = {
                feature.name: _make_column(
                    feature, [instance.get(feature.name) for instance in example], generator
                )
                for feature in features
            }
            optional = {feature.name for feature in features if feature.optional}
            return [
                {
                    name: generate()
                    for name, generate in columns.items()
                    if name not in optional or generator.random() >= _MISSING
                }
                for _ in range(count)
            ]
        case Array(shape=shape, kind=kind, nullable=nullable):
            feature = Feature(name="", kind=kind, nullable=nullable)
            values = zip(*map(_flatten, example), strict=True)
            cells = [_make_column(feature, cell_values, generator) for cell_values in values]
            return [_nest(iter([generate() for generate in cells]), shape) for _ in range(count)]
        case Text():
            words = sorted({word for text in example for word in text.split()}) or [_UNSEEN_TEXT]
            return [_generate_text(words, generator) for _ in range(count)]
        case Tokens():
            tokens = sorted({token for tokens in example for token in tokens} | {_UNSEEN_TEXT})
            return [generator.choices(tokens, k=generator.randint(0, 30)) for _ in range(count)]


def _make_column(feature: Feature, values: Sequence[Any], generator: random.Random) -> Callable[[], Any]:
    """Return a function that generates values of a feature, given its values in the example."""
    present = [value for value in values if value is not None]
    generate_new = _make_new_value(feature, present, generator)

    def generate() -> Any:
        if feature.nullable and generator.random() < _MISSING:
            return None
        return generator.choice(present) if present and generator.random() < _REPEATED else generate_new()

    return generate


def _make_new_value(feature: Feature, present: list[Any], generator: random.Random) -> Callable[[], Any]:
    if feature.categories is not None:
        return lambda: generator.choice(feature.categories or ())
    if feature.kind == "boolean":
        return lambda: generator.random() < 0.5
    if feature.kind in {"number", "integer"}:
        numbers = [float(value) for value in present] or [0.0]
        margin = _BEYOND_RANGE * (max(numbers) - min(numbers) or 1.0)
        low, high = min(numbers) - margin, max(numbers) + margin
        if feature.kind == "integer":
            return lambda: generator.randint(int(low), int(high))
        is_whole = all(number.is_integer() for number in numbers)

        def generate_number() -> float:
            if is_whole and generator.random() < _WHOLE:
                return float(round(generator.uniform(low, high)))
            return generator.uniform(low, high)

        return generate_number
    if feature.kind in {"datetime", "date"}:
        return _make_new_datetime(feature, present, generator)
    choices = [*present, _UNSEEN_TEXT] if all(isinstance(value, str) for value in present) else present
    return lambda: generator.choice(choices)


def _make_new_datetime(feature: Feature, present: list[str], generator: random.Random) -> Callable[[], str]:
    moments = [parse_datetime(text) for text in present] or [datetime(2026, 1, 1, tzinfo=_zone(feature))]
    low, seconds = min(moments), (max(moments) - min(moments)).total_seconds()

    def generate_datetime() -> str:
        moment = low + timedelta(seconds=round(generator.uniform(0, seconds)))
        return moment.date().isoformat() if feature.kind == "date" else moment.isoformat()

    return generate_datetime


def _zone(feature: Feature) -> tzinfo | None:
    return UTC if feature.has_zone else None


def _flatten(value: Any) -> list[Any]:
    return [inner for item in value for inner in _flatten(item)] if isinstance(value, list) else [value]


def _nest(values: Iterator[Any], shape: Sequence[int]) -> Any:
    return [_nest(values, shape[1:]) for _ in range(shape[0])] if shape else next(values)


def _generate_text(words: list[str], generator: random.Random) -> str:
    chosen = generator.choices(words, k=generator.randint(1, 30))
    if generator.random() < _MISSING:
        chosen.insert(0, "Unseen, words: 1.5!")
    return " ".join(chosen)
