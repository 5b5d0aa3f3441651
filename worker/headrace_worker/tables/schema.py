"""The columns and types of a contract, for readers of files: the types are never inferred from rows."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import pyarrow as pa

from headrace.catalog.contract import Array, Contract, Feature, Kind, Named, Text, Tokens
from headrace.wire.outcome import ClassLabel
from headrace_worker.tables.columns import INSTANCE, TEXT

_TYPES: dict[Kind, Any] = {
    "number": pa.float64(),
    "integer": pa.int64(),
    "boolean": pa.bool_(),
    "string": pa.string(),
    "category": pa.string(),
    "date": pa.date32(),
}


def contract_schema(contract: Contract) -> pa.Schema:
    """Return the columns of a table of a contract's instances.

    A list is the column `instance`, a text the column `text`. Any column may hold nulls where it is read: whether
    they are valid, the check decides, for each row.
    """
    match contract.input:
        case Named(features=features):
            return pa.schema(
                [pa.field(feature.name, feature_type(feature), nullable=feature.nullable) for feature in features]
            )
        case Array() as array:
            return pa.schema([(INSTANCE, _nest(array_value_type(array), len(array.shape)))])
        case Text():
            return pa.schema([(TEXT, pa.string())])
        case Tokens():
            return pa.schema([(INSTANCE, pa.list_(pa.string()))])


def column_types(contract: Contract, names: Sequence[str]) -> dict[str, Any]:
    """Return the types of those columns of a file that hold the values of a contract, by their names.

    `names` are all columns of the file. Where instances are lists, each column of a file without nested values is
    a value of the list.
    """
    schema = contract_schema(contract)
    if isinstance(contract.input, Array) and INSTANCE not in names and len(names) == prod(contract.input.shape):
        return dict.fromkeys(names, array_value_type(contract.input))
    if not isinstance(contract.input, Named) and schema.names[0] not in names and len(names) == 1:
        return {names[0]: schema.types[0]}
    return {name: schema.field(name).type for name in names if name in schema.names}


def feature_type(feature: Feature) -> Any:
    """Return the Arrow type of a feature's column."""
    if feature.kind == "datetime":
        return datetime_type(feature)
    if feature.kind == "category" and feature.categories is not None:
        return category_type(feature.categories) or pa.string()
    return _TYPES[feature.kind]


def datetime_type(feature: Feature) -> Any:
    """Return the Arrow type of a column of datetimes: in UTC if they have a zone."""
    unit = "ns" if "[ns" in (feature.dtype or "") else "us"
    return pa.timestamp(unit, tz="UTC" if feature.has_zone else None)


def category_type(categories: Sequence[ClassLabel]) -> Any:
    """Return the Arrow type that holds these categories; None if no type does."""
    kinds = {type(category) for category in categories}
    if kinds == {str}:
        return pa.string()
    if kinds == {bool}:
        return pa.bool_()
    if kinds == {int}:
        return pa.int64() if all(-(2**63) <= category < 2**63 for category in categories) else None  # type: ignore[operator]
    return pa.float64() if kinds and kinds <= {int, float} else None


def array_value_type(array: Array) -> Any:
    """Return the Arrow type of the values of instances that are lists."""
    return _TYPES[array.kind] if array.kind in _TYPES else pa.string()


def _nest(value: Any, depth: int) -> Any:
    return value if depth == 0 else pa.list_(_nest(value, depth - 1))
