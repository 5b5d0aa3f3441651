"""The msgspec types that accept an instance without coercion, built from the schema of a contract."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, Literal, NamedTuple, Union

import msgspec

from headrace.catalog.contract import Array, Feature, InputSchema, Kind, Named, Text, Tokens
from headrace.catalog.datetimes import PLAIN_DATE, PLAIN_DATETIME, PLAIN_INSTANT

# A type that accepts nothing, for schemas that msgspec cannot express: every instance is coerced instead.
_NOTHING = Literal["\0no instance is this"]
# With these bounds, msgspec refuses NaN and infinity.
_MAX_FLOAT = 1.7976931348623157e308
_NUMBER = Annotated[float, msgspec.Meta(ge=-_MAX_FLOAT, le=_MAX_FLOAT)]
_TYPES: dict[Kind, Any] = {
    "number": _NUMBER,
    "integer": int,
    "boolean": bool,
    "string": str,
    "category": str,
    "datetime": Annotated[str, msgspec.Meta(pattern=PLAIN_DATETIME)],
    "date": Annotated[str, msgspec.Meta(pattern=PLAIN_DATE)],
}
_INSTANT = Annotated[str, msgspec.Meta(pattern=PLAIN_INSTANT)]


class InstanceTypes(NamedTuple):
    """The types that accept the instances of a schema."""

    #: The type of an instance.
    instance: Any
    #: A struct whose only field is the list of instances. msgspec caches what it knows of a struct, so a
    #: conversion takes half the time of that to a list.
    batch: Any


def instance_types(schema: InputSchema) -> InstanceTypes:
    """Return the types for a schema, built once for each schema."""
    # The cache's key is JSON: the schemas themselves are equal if a category 1 stands in place of a category True.
    return _build(msgspec.json.encode(schema))


@lru_cache(maxsize=256)
def _build(schema: bytes) -> InstanceTypes:
    instance = _instance_type(msgspec.json.decode(schema, type=InputSchema))
    instances: Any = list[instance]  # type: ignore[valid-type]  # built at run time
    batch = msgspec.defstruct("Batch", [("instances", instances)], array_like=True, gc=False)
    return InstanceTypes(instance, batch)


def _instance_type(schema: InputSchema) -> Any:
    match schema:
        case Named():
            # The attributes are numbered, as a feature may have any name: `mean radius (cm)`, `class`.
            fields: list[tuple[str, Any, Any]] = [
                (f"f{number}", _feature_type(feature), _field(feature))
                for number, feature in enumerate(schema.features)
            ]
            has_optional = any(feature.optional for feature in schema.features)
            try:
                return msgspec.defstruct(
                    "Instance", fields, forbid_unknown_fields=True, gc=False, kw_only=has_optional
                )
            except ValueError:
                # msgspec refuses quotes and line breaks in the names of fields.
                return _NOTHING
        case Array():
            accepted: Any = _TYPES[schema.kind]
            if schema.nullable:
                accepted = accepted | None
            for length in reversed(schema.shape):
                accepted = Annotated[list[accepted], msgspec.Meta(min_length=length, max_length=length)]
            return accepted
        case Text():
            return str
        case Tokens():
            return list[str]


def _field(feature: Feature) -> Any:
    # msgspec refuses an absent field only if it has no default.
    default = msgspec.UNSET if feature.optional else msgspec.NODEFAULT
    return msgspec.field(name=feature.name, default=default)


def _feature_type(feature: Feature) -> Any:
    accepted = _INSTANT if feature.has_zone else _TYPES[feature.kind]
    if feature.kind == "category":
        accepted = _category_type(feature.categories)
    return Union[accepted, None] if feature.nullable else accepted  # noqa: UP007  # built at run time


def _category_type(categories: tuple[str | int | float | bool, ...] | None) -> Any:
    if categories is None:
        return str | int | bool | _NUMBER
    # A Literal takes strings and integers only. Values of other types are compared one by one instead.
    if categories and all(type(value) in {str, int} for value in categories):
        return Literal[categories]
    return _NOTHING
