"""The check of instances against a contract.

It runs in the producer before anything is enqueued, and in the worker, whose jobs may come from any Celery client.
msgspec accepts valid instances in about a microsecond each. Only an instance that it refuses is coerced in Python:
a value with an obvious meaning is replaced (NaN by a missing value, 3.0 by 3, a datetime by its text), and an
error names the first values that do not fit. Errors name features, never values, as they end up in logs.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import time
from decimal import Decimal
from itertools import count, islice
from typing import Any
from uuid import UUID

import msgspec

from headrace.catalog.contract import Array, Contract, Feature, InputSchema, Kind, Named, Text, Tokens
from headrace.catalog.datetimes import parse_datetime, to_text
from headrace.catalog.instance_problems import InstanceProblem, about_feature, make_error, no_instances
from headrace.catalog.instance_types import InstanceTypes, instance_types
from headrace.errors import InvalidInput
from headrace.text import nearest_name
from headrace.wire.message import Instance

#: Most problems that an error names.
_MAX_PROBLEMS = 5
#: Most letters of a name that an error repeats.
_MAX_NAME = 64
#: Most categories that a problem names.
_MAX_CATEGORIES = 12


def check_method(contract: Contract, method: str | None) -> str:
    """Return the method to run, the default one for None. Raises InvalidInput if the version does not have it."""
    if method is None:
        return contract.method
    if method not in contract.methods:
        raise InvalidInput(
            f"{_title(contract)} has no method {method[:64]!r}; it has {', '.join(contract.methods)}"
        )
    return method


def check_instances(
    contract: Contract, instances: Sequence[Any], *, numbers: Iterable[int] | None = None
) -> list[Instance]:
    """Return the instances as they are sent: with values of the contract's types, and None for missing values.

    Raises InvalidInput, which names the first instances and features that do not fit and what is expected.
    `numbers` are the numbers by which it names the instances; None counts from 0.
    """
    if not instances:
        raise no_instances()
    types = instance_types(contract.input)
    try:
        msgspec.convert((instances,), types.batch)
    except (msgspec.ValidationError, RecursionError):
        return _coerce_instances(contract, types, instances, count() if numbers is None else numbers)
    return list(instances)


def _coerce_instances(
    contract: Contract, types: InstanceTypes, instances: Sequence[Any], numbers: Iterable[int]
) -> list[Instance]:
    checked: list[Instance] = []
    problems: list[tuple[int, InstanceProblem]] = []
    for number, instance in zip(numbers, instances, strict=False):
        try:
            msgspec.convert(instance, types.instance)
        except (msgspec.ValidationError, RecursionError):
            coerced, instance_problems = _coerce(contract.input, instance)
            if instance_problems and len(instances) == 1 and _holds_instances(contract.input, instance):
                text = f"is a list of {len(instance)} instances; for a job of several, use `instances=[...]`"
                instance_problems = [InstanceProblem(text)]
            problems += [(number, problem) for problem in instance_problems]
            checked.append(coerced)
            if len(problems) > _MAX_PROBLEMS:
                break
        else:
            checked.append(instance)
    if problems:
        raise make_error(_title(contract), problems, limit=_MAX_PROBLEMS)
    return checked


def _title(contract: Contract) -> str:
    return f"{contract.model}@{contract.version}"


def _holds_instances(schema: InputSchema, instance: Any) -> bool:
    """Decide whether an instance is a list of instances: its first element is valid by itself."""
    is_list = isinstance(instance, list | tuple) or type(instance).__name__ == "ndarray"
    return is_list and len(instance) > 0 and not _coerce(schema, instance[0])[1]


def _coerce(schema: InputSchema, instance: Any) -> tuple[Any, list[InstanceProblem]]:
    """Return the coerced instance and the problems that are left; the instance is valid if there are none."""
    match schema:
        case Named():
            return _coerce_named(schema.features, instance)
        case Array():
            return _coerce_array(schema.shape, schema.kind, schema.nullable, instance)
        case Text():
            return _coerce_text(instance)
        case Tokens():
            return _coerce_tokens(instance)


def _coerce_named(features: Sequence[Feature], instance: Any) -> tuple[Any, list[InstanceProblem]]:
    """Coerce an object of named features. Returns it and the problems that are left."""
    if not isinstance(instance, Mapping):
        text = f"must be an object of {len(features)} named features, got {_describe_type(instance)}"
        return None, [InstanceProblem(text)]
    problems: list[InstanceProblem] = []
    coerced: dict[str, Any] = {}
    expected = [feature.name for feature in features]
    names = set(expected)
    missing = [name for name in expected if name not in instance]
    misspelt: set[str] = set()
    # A problem more than an error names: it says that there are more.
    for name in islice((name for name in instance if name not in names), _MAX_PROBLEMS + 1):
        hint = ""
        if len(problems) < _MAX_PROBLEMS and (nearest := nearest_name(str(name), missing or expected)):
            misspelt.add(nearest)
            hint = f"; did you mean {nearest!r}?"
        is_short = isinstance(name, str) and len(name) <= _MAX_NAME
        text = f"no feature {_abbreviate(name)} in the contract{hint}"
        problems.append(InstanceProblem(text, (name,) if is_short else ()))
    for feature in features:
        if len(problems) > _MAX_PROBLEMS:
            break
        if feature.name in instance:
            coerced[feature.name], problem = coerce_value(feature, instance[feature.name])
            if problem:
                problems.append(about_feature(feature.name, problem))
        elif not feature.optional and feature.name not in misspelt:
            problems.append(about_feature(feature.name, "is missing"))
    return coerced, problems


def _coerce_array(
    shape: Sequence[int], kind: Kind, nullable: bool, instance: Any
) -> tuple[Any, list[InstanceProblem]]:
    """Coerce a list of values, nested by `shape`. Returns it and the problems that are left."""
    if not shape:
        scalar, problem = _coerce_scalar(kind, nullable, instance)
        return scalar, [InstanceProblem(problem)] if problem else []
    size = " x ".join(str(length) for length in shape)
    if type(instance).__module__ == "numpy" and hasattr(instance, "tolist") and not _is_numpy_time(instance):
        instance = instance.tolist()
    if not isinstance(instance, list | tuple):
        return None, [InstanceProblem(f"must be a list of {size} values, got {_describe_type(instance)}")]
    if len(instance) != shape[0]:
        return None, [InstanceProblem(f"must be a list of {size} values, got a list of {len(instance)}")]
    values: list[Any] = []
    for index, value in enumerate(instance):
        coerced, problems = _coerce_array(shape[1:], kind, nullable, value)
        if problems:
            return None, [problems[0].within(index)]
        values.append(coerced)
    return values, []


def _coerce_text(instance: Any) -> tuple[Any, list[InstanceProblem]]:
    """Check a string. Returns it and the problems that are left."""
    instance = _read_typed(instance)
    if isinstance(instance, str):
        return instance, []
    return None, [InstanceProblem(f"must be a string, got {_describe_type(instance)}")]


def _coerce_tokens(instance: Any) -> tuple[Any, list[InstanceProblem]]:
    """Check a list of strings. Returns it and the problems that are left."""
    if type(instance).__module__ == "numpy" and hasattr(instance, "tolist") and not _is_numpy_time(instance):
        instance = instance.tolist()
    if not isinstance(instance, list | tuple):
        hint = "; split it into tokens" if isinstance(instance, str) else ""
        return None, [InstanceProblem(f"must be a list of strings, got {_describe_type(instance)}{hint}")]
    tokens: list[str] = []
    for index, value in enumerate(instance):
        token, problems = _coerce_text(value)
        if problems:
            return None, [problems[0].within(index)]
        tokens.append(token)
    return tokens, []


def coerce_value(feature: Feature, value: Any) -> tuple[Any, str | None]:
    """Coerce the value of a feature. Returns it as it is sent, and the problem that is left, None if valid."""
    if feature.kind in {"datetime", "date"}:
        return _coerce_datetime(feature, value)
    coerced, problem = _coerce_scalar(feature.kind, feature.nullable, value)
    if problem or coerced is None or feature.categories is None:
        return coerced, problem
    # 1 == True in Python, but a category True is not a category 1.
    for category in feature.categories:
        if category == coerced and isinstance(category, bool) == isinstance(coerced, bool):
            return category, None
    listing = ", ".join(str(category) for category in feature.categories[:_MAX_CATEGORIES])
    if len(feature.categories) > _MAX_CATEGORIES:
        listing = f"{len(feature.categories)}, the first {listing}"
    return None, f"has a category the model does not know; it knows {listing}"


def _coerce_datetime(feature: Feature, value: Any) -> tuple[Any, str | None]:
    """Coerce a datetime or date to its text."""
    if _is_missing(value) or (_is_numpy_time(value) and str(value) == "NaT"):
        return _coerce_scalar(feature.kind, feature.nullable, None)
    text = to_text(_read_typed(value))
    expected = _EXPECTED[feature.kind]
    if not isinstance(text, str):
        return None, f"must be {expected}, got {_describe_type(value)}"
    try:
        moment = parse_datetime(text)
    except ValueError:
        return None, f"must be {expected}, got another text"
    if feature.kind == "date":
        if moment.tzinfo is not None or moment.time() != time():
            return None, f"must be {expected}, got a time of day too"
        return text[:10], None
    if feature.has_zone and moment.tzinfo is None:
        return None, "must be a datetime with a zone, as 2026-01-02T03:04:05Z or +01:00; it has none"
    if not feature.has_zone and moment.tzinfo is not None:
        return None, "must be a datetime without a zone, as 2026-01-02T03:04:05; it has one"
    return text, None


def _is_missing(value: Any) -> bool:
    # pandas represents a missing value as NaN, NA or NaT, depending on the type of the column.
    is_nan = isinstance(value, float) and math.isnan(value)
    return value is None or is_nan or type(value).__name__ in {"NAType", "NaTType"}


def _is_numpy_time(value: Any) -> bool:
    """Decide whether a value is a datetime or a duration of numpy, or an array of them.

    numpy converts them to integers.
    """
    return type(value).__module__ == "numpy" and getattr(getattr(value, "dtype", None), "kind", "") in {"m", "M"}


def _coerce_scalar(kind: Kind, nullable: bool, value: Any) -> tuple[Any, str | None]:
    if type(value).__module__ == "numpy" and hasattr(value, "item") and not _is_numpy_time(value):
        value = value.item()
    value = _read_typed(value)
    if isinstance(value, Decimal):
        value = float(value)
    if _is_missing(value):
        return None, None if nullable else f"must be {_EXPECTED[kind]}, got a missing value (null or NaN)"
    if isinstance(value, float) and math.isinf(value):
        return None, "is infinite, which JSON cannot express and no model accepts"
    match kind, value:
        case ("boolean", bool()) | ("string", str()) | ("category", str() | int() | float()):
            return value, None
        case ("number" | "integer", bool()):
            pass
        case ("number", int()) if abs(value) > sys.float_info.max:
            return None, "is larger than any 64-bit float"
        case ("number", int() | float()) | ("integer", int()):
            return value, None
        case ("integer", float()) if value.is_integer():
            return int(value), None
    return None, f"must be {_EXPECTED[kind]}, got {_describe_type(value)}"


def _read_typed(value: Any) -> Any:
    """Return a value that kombu's JSON marks with its type, such as a date; other values are returned as they are.

    Source: `kombu.utils.json`.
    """
    match value:
        case {"__type__": "datetime" | "date" | "time" | "bytes", "__value__": str(text), **rest} if not rest:
            return text
        case {"__type__": "decimal", "__value__": str(text), **rest} if not rest:
            with suppress(ArithmeticError):
                return Decimal(text)
        case {"__type__": "uuid", "__value__": {"hex": str(text)}, **rest} if not rest:
            with suppress(ValueError):
                return str(UUID(text))
    return value


_EXPECTED = {
    "number": "a number",
    "integer": "an integer",
    "boolean": "true or false",
    "string": "a string",
    "category": "a category (a string or a number)",
    "datetime": "a datetime (ISO 8601)",
    "date": "a date (ISO 8601, as 2026-01-02)",
}


def _describe_type(value: Any) -> str:
    """Return the JSON name of a value's type, with its article."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list() | tuple():
            return f"a list of {len(value)}"
        case Mapping():
            return "an object"
        case _:
            return f"a {type(value).__name__}"


def _abbreviate(name: Any) -> str:
    text = repr(str(name)[:_MAX_NAME])
    return text if len(text) <= _MAX_NAME + 2 else text[:60] + "...'"
