"""An instance with typical values, for documentation: a reader sees at once how an instance looks.

It is no row of the data that it is made of. Numbers are the median of their column. A text is shown only if
several rows have it, or if the contract lists it, and a redacted value never is.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import median_low
from typing import Any

from headrace.catalog.contract import Array, Feature, InputSchema, Kind, Named, Text, Tokens

#: Most values of the instance: a longer one explains nothing.
_MAX_VALUES = 1_000
#: The fewest rows that must have a text before it is shown.
_MIN_ROWS = 2
#: Below it, a float without a fraction is written as an integer.
_MAX_ROUND = 1e15
#: The values that stand where none is typical.
_PLACEHOLDERS: dict[Kind, Any] = {
    "number": 1.5,
    "integer": 1,
    "boolean": True,
    "string": "text",
    "category": "text",
    "datetime": "2026-01-02T03:04:05",
    "date": "2026-01-02",
}


def typical_instance(schema: InputSchema, instances: Sequence[Any] = ()) -> Any:
    """Return an instance that fits a schema, with typical values of these instances, which fit it too.

    None if it would have more than 1,000 values. Optional features are left out.
    """
    match schema:
        case Named(features=features):
            required = [feature for feature in features if not feature.optional]
            if len(required) > _MAX_VALUES:
                return None
            return {
                feature.name: _feature_value(feature, [instance.get(feature.name) for instance in instances])
                for feature in required
            }
        case Array(shape=shape):
            if math.prod(shape) > _MAX_VALUES:
                return None
            return _array(schema, shape, () if schema.redact else instances)
        case Text():
            return "a text"
        case Tokens():
            return ["a", "text"]


def _feature_value(feature: Feature, values: Sequence[Any]) -> Any:
    if feature.redact:
        values = ()
    if feature.categories:
        frequent = _frequent(values, 1)
        return feature.categories[0] if frequent is None else frequent
    placeholder = _PLACEHOLDERS[feature.kind]
    return _value(feature.kind, values, f"{placeholder}Z" if feature.has_zone else placeholder)


def _array(schema: Array, shape: Sequence[int], instances: Sequence[Any]) -> Any:
    if not shape:
        return _value(schema.kind, instances, _PLACEHOLDERS[schema.kind])
    return [_array(schema, shape[1:], [values[index] for values in instances]) for index in range(shape[0])]


def _value(kind: Kind, values: Sequence[Any], placeholder: Any) -> Any:
    match kind:
        case "number" | "integer":
            numbers = [value for value in values if value is not None]
            median = median_low(numbers) if numbers else placeholder
            return int(median) if abs(median) < _MAX_ROUND and float(median).is_integer() else median
        case "boolean" | "string" | "category":
            frequent = _frequent(values, _MIN_ROWS)
            return placeholder if frequent is None else frequent
        case "datetime" | "date":
            return placeholder


def _frequent(values: Sequence[Any], rows: int) -> Any:
    """Return the most frequent value that is not missing; None if fewer than `rows` rows have it."""
    counts = Counter(value for value in values if value is not None)
    value, count = counts.most_common(1)[0] if counts else (None, 0)
    return value if count >= rows else None
