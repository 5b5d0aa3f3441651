"""Rows to try a runtime with, made of a contract and an example: within its ranges, and a little outside of them.

Always the same ones for the same model, so that what is found can be found again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from headrace.catalog.contract import Array, Feature, Named, Text
from headrace.wire.message import Instance

#: How often a value that may be missing is, and how often one is as it was in the example.
_MISSING, _REPEATED = 0.1, 0.3
#: How far outside of the example's range a number may lie, as a part of that range.
_OUTSIDE = 0.1
_UNSEEN = "a category that was never seen"


def generate_instances(given: Named | Array | Text, instances: Sequence[Any], count: int) -> list[Instance]:
    """As many rows that fit a contract, like those of the example; no promise that a model takes them."""
    chance = random.Random(7)  # noqa: S311  # trials, not secrets
    match given:
        case Named(features=features):
            columns = {
                feature.name: _column(feature, [instance[feature.name] for instance in instances], chance)
                for feature in features
            }
            return [{name: value() for name, value in columns.items()} for _ in range(count)]
        case Array(shape=shape, kind=kind, nullable=nullable):
            feature = Feature(name="", kind=kind, nullable=nullable)
            places = [_column(feature, values, chance) for values in zip(*map(_flat, instances), strict=True)]
            return [_nested(iter([value() for value in places]), shape) for _ in range(count)]
        case Text():
            words = sorted({word for text in instances for word in text.split()}) or [_UNSEEN]
            return [_text(words, chance) for _ in range(count)]


def _column(feature: Feature, values: Sequence[Any], chance: random.Random) -> Callable[[], Any]:
    """What makes values of a feature that has had these in the example."""
    seen = [value for value in values if value is not None]
    new = _new(feature, seen, chance)

    def value() -> Any:
        if feature.nullable and chance.random() < _MISSING:
            return None
        return chance.choice(seen) if seen and chance.random() < _REPEATED else new()

    return value


def _new(feature: Feature, seen: list[Any], chance: random.Random) -> Callable[[], Any]:
    if feature.categories is not None:
        return lambda: chance.choice(feature.categories or ())
    if feature.kind == "boolean":
        return lambda: chance.random() < 0.5
    if feature.kind in {"number", "integer"}:
        numbers = [float(value) for value in seen] or [0.0]
        spare = _OUTSIDE * (max(numbers) - min(numbers) or 1.0)
        low, high = min(numbers) - spare, max(numbers) + spare
        if feature.kind == "integer":
            return lambda: chance.randint(int(low), int(high))
        # Those who are whole in the example are mostly counts and codes: an eighth of them is not.
        whole = all(number.is_integer() for number in numbers)
        return lambda: (
            float(round(chance.uniform(low, high)))
            if whole and chance.random() < 0.875
            else (chance.uniform(low, high))
        )
    known = [*seen, _UNSEEN] if all(isinstance(value, str) for value in seen) else seen
    return lambda: chance.choice(known)


def _flat(value: Any) -> list[Any]:
    return [inner for item in value for inner in _flat(item)] if isinstance(value, list) else [value]


def _nested(values: Iterator[Any], shape: Sequence[int]) -> Any:
    return [_nested(values, shape[1:]) for _ in range(shape[0])] if shape else next(values)


def _text(words: list[str], chance: random.Random) -> str:
    chosen = chance.choices(words, k=chance.randint(1, 30))
    if chance.random() < _MISSING:
        chosen.insert(0, "Unseen, words: 1.5!")
    return " ".join(chosen)
