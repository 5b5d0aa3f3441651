"""Mend an instance that did not fit its contract at once, or say why it cannot be mended.

Each function returns the mended instance and the list of problems; the instance is good when the list is
empty. Names of features are told, values never: an error ends up in logs.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from headrace.text import did_you_mean, nearest_name

if TYPE_CHECKING:
    from headrace.catalog.contract import Feature, Kind


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
