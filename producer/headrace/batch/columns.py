"""Maps the columns of a file to the features of a contract, and the text of a cell to a value.

A cell that cannot be read as its feature's kind stays text. The check against the contract, which follows, then
reports the error in the same words as for every other producer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import msgspec

from headrace.catalog.contract import Array, Contract, Feature, Kind, Named, Text, Tokens
from headrace.errors import InvalidInput
from headrace.text import MISSING_TEXTS, nearest_name

#: The texts of a boolean, in small letters.
BOOLEANS = {
    "true": True,
    "yes": True,
    "1": True,
    "1.0": True,
    "false": False,
    "no": False,
    "0": False,
    "0.0": False,
}

CellReader = Callable[[str], Any]


class Columns(msgspec.Struct, frozen=True, kw_only=True):
    """The columns that make an instance. Columns that are no features of the contract are not among them."""

    #: The index of each value's cell in the row, and the function that reads its text, in the contract's order.
    readers: tuple[tuple[int, CellReader], ...]
    #: The names of the features; None where instances are lists or texts.
    names: tuple[str, ...] | None = None
    #: The names of those that an instance may leave out: it has none for an empty cell.
    optional: frozenset[str] = frozenset()
    #: The shape of an instance that is a list; () for a text.
    shape: tuple[int, ...] = ()

    def instance(self, cells: Sequence[str]) -> Any:
        """Return the instance in a row with a cell for each column. It is not checked against the contract yet."""
        values = [read(cells[index]) for index, read in self.readers]
        if self.names is not None:
            pairs = zip(self.names, values, strict=True)
            if self.optional:
                return {name: value for name, value in pairs if value is not None or name not in self.optional}
            return dict(pairs)
        return _nest(values, self.shape) if self.shape else values[0]


def match_columns(contract: Contract, header: Sequence[str], column_names: Sequence[str] = ()) -> Columns:
    """Find the values of the contract among the columns of a file.

    Named features are matched by name. `column_names` are the columns of a list's values in order, or of a text;
    without it, a list takes all columns in order, and a text the column `text` or the only one.
    Raises InvalidInput with the missing columns and similar names.
    """
    _check_unique(header)
    missing = [name for name in column_names if name not in header]
    if missing:
        raise InvalidInput(_describe_missing("named by --column", missing, header))
    match contract.input:
        case Named(features=features):
            if column_names:
                raise InvalidInput(
                    f"{contract.model}@{contract.version} takes named features, which are matched by name; "
                    "--column is for models that take lists or texts"
                )
            return _match_named(f"that {contract.model}@{contract.version} takes", features, header)
        case Array() as array:
            return _match_array(contract, array, header, column_names)
        case Text():
            return _match_text(contract, header, column_names)
        case Tokens():
            raise InvalidInput(
                f"{contract.model}@{contract.version} takes lists of strings, which no row of columns holds; "
                "give a file of JSON lines, a list in each"
            )


def _check_unique(header: Sequence[str]) -> None:
    numbers: dict[str, int] = {}
    for number, name in enumerate(header, start=1):
        if name in numbers:
            raise InvalidInput(
                f"columns {numbers[name]} and {number} are both named {_quote(name)}; rename one of them"
            )
        numbers[name] = number


def _match_named(role: str, features: Sequence[Feature], header: Sequence[str]) -> Columns:
    indexes = {name: index for index, name in enumerate(header)}
    missing = [feature.name for feature in features if feature.name not in indexes and not feature.optional]
    present = [feature for feature in features if feature.name in indexes]
    if missing:
        raise InvalidInput(_describe_missing(role, missing, header))
    if not present:
        raise InvalidInput(_describe_missing(role, [feature.name for feature in features], header))
    return Columns(
        readers=tuple((indexes[feature.name], make_cell_reader(feature)) for feature in present),
        names=tuple(feature.name for feature in present),
        optional=frozenset(feature.name for feature in present if feature.optional),
    )


def _match_array(contract: Contract, array: Array, header: Sequence[str], column_names: Sequence[str]) -> Columns:
    indexes = [list(header).index(name) for name in column_names] or list(range(len(header)))
    expected = prod(array.shape)
    title = f"{contract.model}@{contract.version}"
    if len(indexes) != expected:
        raise InvalidInput(
            f"{title} takes {expected} values a row, and the file has {len(indexes)} columns for them; "
            "name the columns to send with --column, in order"
        )
    if not column_names and _looks_like_values(header):
        raise InvalidInput(
            "the first line holds values, and a CSV begins with a line of column names; put one before it"
        )
    read = make_cell_reader(Feature(name="", kind=array.kind, nullable=array.nullable))
    return Columns(readers=tuple((index, read) for index in indexes), shape=array.shape)


def _match_text(contract: Contract, header: Sequence[str], column_names: Sequence[str]) -> Columns:
    names = list(column_names) or [name for name in header if name == "text"] or list(header)
    if len(names) != 1:
        raise InvalidInput(
            f"{contract.model}@{contract.version} takes a text, and the file has {len(header)} columns, none of "
            "them named 'text'; name the column with --column"
        )
    # An empty cell is an empty text, not a missing value.
    return Columns(readers=((list(header).index(names[0]), str),))


def _looks_like_values(header: Sequence[str]) -> bool:
    if not all(isinstance(_read_number(name), float) for name in header):
        return False
    # pandas names the columns of a bare array 0, 1, 2, ...
    return list(header) not in ([str(first + index) for index in range(len(header))] for first in (0, 1))


def _describe_missing(role: str, missing: Sequence[str], header: Sequence[str]) -> str:
    """Return the message about missing columns. `role` follows the word column: `named by --column`."""
    names = ", ".join(_add_suggestion(name, header) for name in missing[:10])
    omitted = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
    columns = "a column" if len(missing) == 1 else f"{len(missing)} columns"
    present = ", ".join(_quote(name) for name in header[:20]) + (", ..." if len(header) > 20 else "")
    return f"the file lacks {columns} {role}: {names}{omitted}; it has {present}"


def _add_suggestion(name: str, header: Sequence[str]) -> str:
    by_lower_case = {column[:64].strip().lower(): column for column in header}
    nearest = nearest_name(name.lower(), by_lower_case)
    return f"{_quote(name)} (did you mean {_quote(by_lower_case[nearest])}?)" if nearest else _quote(name)


def _quote(name: str) -> str:
    return repr(name if len(name) <= 64 else name[:60] + "...")


def _nest(values: list[Any], shape: tuple[int, ...]) -> list[Any]:
    if len(shape) == 1:
        return values
    step = prod(shape[1:])
    return [_nest(values[start : start + step], shape[1:]) for start in range(0, len(values), step)]


def make_cell_reader(feature: Feature) -> CellReader:
    """Return the function that reads a cell of a feature: from text to a number, boolean, string or None."""
    if feature.kind == "category" and feature.categories is not None:
        return _make_category_reader(feature.categories)
    if feature.kind in {"datetime", "date"}:
        return _read_datetime
    if feature.kind in {"string", "category"}:
        # Where no value may be missing, "NA" can only be a name or a country.
        return _read_nullable if feature.nullable else _read_string
    return _CELL_READERS[feature.kind]


def _read_number(text: str) -> Any:
    try:
        # Only Python reads 1_000 as a number.
        return float(text) if "_" not in text else text
    except ValueError:
        return _read_nullable(text)


def _read_integer(text: str) -> Any:
    try:
        return int(text) if "_" not in text else text
    except ValueError:
        return _read_number(text)


def _read_boolean(text: str) -> Any:
    word = text.strip().lower()
    return BOOLEANS[word] if word in BOOLEANS else _read_nullable(text)


def _read_string(text: str) -> Any:
    return text or None


def _read_nullable(text: str) -> Any:
    return None if text.strip() in MISSING_TEXTS else text


def _read_datetime(text: str) -> Any:
    return None if text.strip() == "NaT" else _read_nullable(text.strip())


def _make_category_reader(categories: tuple[str | int | float | bool, ...]) -> CellReader:
    by_text: dict[str, Any] = {}
    for category in categories:
        by_text.setdefault(str(category), category)
        if isinstance(category, bool):
            by_text.setdefault(str(category).lower(), category)
        elif isinstance(category, int | float):
            # pandas writes a column of whole numbers with missing values as 1.0, 2.0.
            by_text.setdefault(str(float(category)), category)
            if float(category).is_integer():
                by_text.setdefault(str(int(category)), category)

    def read(text: str) -> Any:
        return by_text[text] if text in by_text else _read_nullable(text)

    return read


_CELL_READERS: dict[Kind, CellReader] = {
    "number": _read_number,
    "integer": _read_integer,
    "boolean": _read_boolean,
}
