"""The check of instances against a contract.

The check runs in the producer before anything is enqueued, and in the worker, whose jobs may come from any
Celery client. msgspec decides what passes, in about a microsecond an instance. Only what it refuses is looked at
in Python: a value with an obvious meaning is coerced (NaN to a missing value, 3.0 to 3), and the error names
everything else that does not fit. Errors name features, never values: they end up in logs.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from itertools import count
from typing import Annotated, Any, Literal, NamedTuple, Union

import msgspec

from headrace.catalog.contract import Array, Contract, Feature, Kind, Named, Text
from headrace.errors import InvalidInput
from headrace.text import did_you_mean, nearest_name
from headrace.wire.message import Instance


def check_method(contract: Contract, method: str | None) -> str:
    """The method to run. Raises InvalidInput for one the version does not offer."""
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
    """The instances as they are sent: of the contract's types, missing values as None.

    Raises InvalidInput naming the first instances and features that do not fit, and what would. `numbers` are
    those of the instances in the caller's count, from 0 by default.
    """
    if not instances:
        raise InvalidInput("a job needs at least one instance; the list is empty")
    accepts = _accepts(contract.input)
    try:
        msgspec.convert((instances,), accepts.list_type)
    except (msgspec.ValidationError, RecursionError):
        return _mend(contract, accepts, instances, count() if numbers is None else numbers)
    return list(instances)


def _mend(
    contract: Contract, accepts: _Accepts, instances: Sequence[Any], numbers: Iterable[int]
) -> list[Instance]:
    checked: list[Instance] = []
    problems: list[str] = []
    for number, instance in zip(numbers, instances, strict=False):
        try:
            msgspec.convert(instance, accepts.instance_type)
        except (msgspec.ValidationError, RecursionError):
            mended, found = _explain(contract.input, instance)
            problems += [f"instance {number}: {problem}" for problem in found]
            checked.append(mended)
            if len(problems) > _MOST_PROBLEMS:
                break
        else:
            checked.append(instance)
    if problems:
        more = "; ..." if len(problems) > _MOST_PROBLEMS else ""
        raise InvalidInput(f"{_title(contract)}: {'; '.join(problems[:_MOST_PROBLEMS])}{more}")
    return checked


#: An error names this many problems at the most.
_MOST_PROBLEMS = 5


def _title(contract: Contract) -> str:
    return f"{contract.model}@{contract.version}"


def _explain(given: Named | Array | Text, instance: Any) -> tuple[Any, list[str]]:
    match given:
        case Named():
            return coerce_named(given.features, instance)
        case Array():
            return coerce_array(given.shape, given.kind, given.nullable, instance)
        case Text():
            return coerce_text(instance)


# A type that accepts nothing: `explain` looks at every instance instead.
_THE_SLOW_WAY = Literal["\0no instance is this"]
# A bounded float is how NaN and infinity are told from numbers at msgspec's speed.
_LARGEST = 1.7976931348623157e308
_NUMBER = Annotated[float, msgspec.Meta(ge=-_LARGEST, le=_LARGEST)]
_TYPES: dict[Kind, Any] = {
    "number": _NUMBER,
    "integer": int,
    "boolean": bool,
    "string": str,
    "category": str,
}


class _Accepts(NamedTuple):
    """Types of what needs no mending."""

    instance_type: Any
    #: A list of instances, as the only field of a struct: msgspec keeps what it knows of a struct, and a call
    #: costs half.
    list_type: Any


def _accepts(given: Named | Array | Text) -> _Accepts:
    # Not cached by the contract itself: 1 == True, but a category 1 is not a category True.
    return _built(msgspec.json.encode(given))


@lru_cache(maxsize=256)
def _built(contract: bytes) -> _Accepts:
    one = _type_of_one(msgspec.json.decode(contract, type=Named | Array | Text))
    instances: Any = list[one]  # type: ignore[valid-type]  # built while running
    every = msgspec.defstruct("Every", [("instances", instances)], array_like=True, gc=False)
    return _Accepts(one, every)


def _type_of_one(given: Named | Array | Text) -> Any:
    match given:
        case Named():
            # The attributes are numbered: a feature may have any name, `mean radius (cm)` or `class`.
            fields: list[tuple[str, Any, Any]] = [
                (f"f{number}", _type_of(feature), msgspec.field(name=feature.name))
                for number, feature in enumerate(given.features)
            ]
            try:
                return msgspec.defstruct("Accepted", fields, forbid_unknown_fields=True, gc=False)
            except ValueError:
                # msgspec has no fields with quotes or line breaks in their names.
                return _THE_SLOW_WAY
        case Array():
            accepted: Any = _TYPES[given.kind]
            if given.nullable:
                accepted = accepted | None
            for length in reversed(given.shape):
                accepted = Annotated[list[accepted], msgspec.Meta(min_length=length, max_length=length)]
            return accepted
        case Text():
            return str


def _type_of(feature: Feature) -> Any:
    accepted = _TYPES[feature.kind]
    if feature.kind == "category":
        accepted = _one_of(feature.categories)
    return Union[accepted, None] if feature.nullable else accepted  # noqa: UP007  # built while running


def _one_of(categories: tuple[str | int | float | bool, ...] | None) -> Any:
    if categories is None:
        return str | int | bool | _NUMBER
    # A Literal holds strings or integers; lists of other values go the slow way, which compares them.
    if categories and all(type(value) in {str, int} for value in categories):
        return Literal[categories]
    return _THE_SLOW_WAY


def coerce_named(features: Sequence[Feature], instance: Any) -> tuple[Any, list[str]]:
    """An object of named features."""
    if not isinstance(instance, Mapping):
        return None, [f"must be an object of {len(features)} named features, got {_a(instance)}"]
    problems: list[str] = []
    mended: dict[str, Any] = {}
    expected = [feature.name for feature in features]
    known = set(expected)
    extra = [name for name in instance if name not in known]
    missing = [name for name in expected if name not in instance]
    for name in extra:
        problems.append(
            f"no feature {_shown(name)} in the contract" + did_you_mean(str(name), missing or expected)
        )
    spelt_wrong = {nearest_name(str(name), missing) for name in extra}
    for feature in features:
        if feature.name in instance:
            mended[feature.name], problem = _value(feature, instance[feature.name])
            if problem:
                problems.append(f"feature {feature.name!r} {problem}")
        elif feature.name not in spelt_wrong:
            problems.append(f"feature {feature.name!r} is missing")
    return mended, problems


def coerce_array(shape: Sequence[int], kind: Kind, nullable: bool, instance: Any) -> tuple[Any, list[str]]:
    """A list of values, nested as deep as the shape is long."""
    if not shape:
        mended, problem = _scalar(kind, nullable, instance)
        return mended, [problem] if problem else []
    wanted = " x ".join(str(length) for length in shape)
    if type(instance).__module__ == "numpy" and hasattr(instance, "tolist"):
        instance = instance.tolist()
    if not isinstance(instance, list | tuple):
        return None, [f"must be a list of {wanted} values, got {_a(instance)}"]
    if len(instance) != shape[0]:
        return None, [f"must be a list of {wanted} values, got a list of {len(instance)}"]
    mended_list: list[Any] = []
    for index, value in enumerate(instance):
        mended, problems = coerce_array(shape[1:], kind, nullable, value)
        if problems:
            return None, [f"at [{index}]: {problems[0]}"]
        mended_list.append(mended)
    return mended_list, []


def coerce_text(instance: Any) -> tuple[Any, list[str]]:
    """A string."""
    return (instance, []) if isinstance(instance, str) else (None, [f"must be a string, got {_a(instance)}"])


def _value(feature: Feature, value: Any) -> tuple[Any, str | None]:
    mended, problem = _scalar(feature.kind, feature.nullable, value)
    if problem or mended is None or feature.categories is None:
        return mended, problem
    # 1 == True in Python, but a category True is not a category 1.
    for category in feature.categories:
        if category == mended and isinstance(category, bool) == isinstance(mended, bool):
            return category, None
    known = [str(category) for category in feature.categories]
    if len(known) > 12:
        return (
            None,
            f"has a category the model does not know; it knows {len(known)}, the first {', '.join(known[:12])}",
        )
    return None, f"has a category the model does not know; it knows {', '.join(known)}"


def _scalar(kind: Kind, nullable: bool, value: Any) -> tuple[Any, str | None]:
    if type(value).__module__ == "numpy" and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, Decimal):
        value = float(value)
    # pandas writes a missing value as NaN, NA or NaT, whatever the type of the column.
    if (
        value is None
        or type(value).__name__ in {"NAType", "NaTType"}
        or (isinstance(value, float) and math.isnan(value))
    ):
        return (None, None) if nullable else (None, f"must be {_WANTED[kind]}, got a missing value (null or NaN)")
    if isinstance(value, float) and math.isinf(value):
        return None, "is infinite, which JSON cannot say and no model takes"
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
    return None, f"must be {_WANTED[kind]}, got {_a(value)}"


_WANTED = {
    "number": "a number",
    "integer": "an integer",
    "boolean": "true or false",
    "string": "a string",
    "category": "a category (a string or a number)",
}


def _a(value: Any) -> str:
    """The JSON name of a value's type, with its article."""
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


def _shown(name: Any) -> str:
    text = repr(str(name))
    return text if len(text) <= 66 else text[:60] + "...'"
