"""Find the columns of a contract in a table. The order of the columns and further columns do not matter."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import pyarrow as pa

from headrace.catalog.contract import Array, Contract, Feature, Named
from headrace.errors import InvalidInput
from headrace.text import nearest_name

#: The columns of instances that are lists, and that are texts. A table of one column may give it another name.
INSTANCE, TEXT = "instance", "text"
#: The most names in an error message.
_MAX_NAMES = 10


def select_columns(contract: Contract, table: pa.Table) -> pa.Table:
    """Return the columns of a table that make its instances, in the contract's order.

    They are those of the features that are present, or those of the values of a list, or the only column of lists
    or texts. Raises InvalidInput if the table as a whole does not fit the contract.
    """
    names = list(table.column_names)
    match contract.input:
        case Named(features=features):
            return table.select(_find_features(contract, features, names))
        case Array() as array if _has_column_of_each_value(array, table.schema):
            return table
        case _:
            return table.select([_find_column(contract, table.schema)])


def _find_features(contract: Contract, features: Sequence[Feature], names: Sequence[str]) -> list[int]:
    positions: dict[str, int] = {}
    duplicates: set[str] = set()
    for position, name in enumerate(names):
        if positions.setdefault(name, position) != position:
            duplicates.add(name)
    if repeated := [feature.name for feature in features if feature.name in duplicates]:
        raise InvalidInput(f"the table has two columns {_quote(repeated[0])}; rename one of them")
    missing = [feature.name for feature in features if feature.name not in positions and not feature.optional]
    present = [positions[feature.name] for feature in features if feature.name in positions]
    if missing or not present:
        raise InvalidInput(_describe_missing(contract, missing or [feature.name for feature in features], names))
    return present


def _has_column_of_each_value(array: Array, schema: pa.Schema) -> bool:
    """Decide whether all columns are values of a list, one each."""
    return len(schema) == prod(array.shape) and not any(map(_is_list, schema.types))


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _find_column(contract: Contract, schema: pa.Schema) -> int:
    """Return the position of the column that holds whole instances. Raises InvalidInput."""
    names = list(schema.names)
    for name in (INSTANCE, TEXT):
        if names.count(name) == 1:
            return names.index(name)
    lists = [number for number, kind in enumerate(schema.types) if _is_list(kind)]
    if len(lists) == 1:
        return lists[0]
    if len(names) == 1:
        return 0
    expected = ""
    if isinstance(contract.input, Array):
        expected = f", or {prod(contract.input.shape)} columns of one value each"
    raise InvalidInput(
        f"which column of the table holds the instances of {contract.model}@{contract.version}? It has "
        f"{len(names)} columns; name one of them {INSTANCE!r}, or give the table this column only{expected}"
    )


def _describe_missing(contract: Contract, missing: Sequence[str], names: Sequence[str]) -> str:
    listing = ", ".join(_add_suggestion(name, names) for name in missing[:_MAX_NAMES])
    omitted = f" and {len(missing) - _MAX_NAMES} more" if len(missing) > _MAX_NAMES else ""
    count = "a column" if len(missing) == 1 else f"{len(missing)} columns"
    present = ", ".join(map(_quote, names[: 2 * _MAX_NAMES])) + (", ..." if len(names) > 2 * _MAX_NAMES else "")
    return (
        f"the table lacks {count} that {contract.model}@{contract.version} takes: {listing}{omitted}; it has "
        f"{present or 'no columns'}"
    )


def _add_suggestion(name: str, names: Sequence[str]) -> str:
    by_lower_case = {column[:64].strip().lower(): column for column in names}
    nearest = nearest_name(name.lower(), by_lower_case)
    return f"{_quote(name)} (did you mean {_quote(by_lower_case[nearest])}?)" if nearest else _quote(name)


def _quote(name: str) -> str:
    return repr(name if len(name) <= 64 else name[:60] + "...")
