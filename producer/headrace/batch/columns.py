"""The cells of a table as the contract's types: which column is which feature, and what a cell's text means.

A cell that cannot be read as its feature's kind is left as text: the check against the contract, which
follows, says what is wrong with it in the words every producer uses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import msgspec

from headrace.catalog.contract import Array, Contract, Feature, Kind, Named, Text
from headrace.errors import InvalidInput
from headrace.text import nearest_name

#: What is written where a value is missing: the words pandas.read_csv takes for it, for a model was most likely
#: trained on what that read. (pandas documents them under `na_values`.)
_MISSING = {
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
}
_BOOLEANS = {
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
    """How a row of cells becomes an instance. Columns the contract does not know take no part."""

    #: Position of each value's cell in the row, and how its text is read, in the contract's order.
    readings: tuple[tuple[int, CellReader], ...]
    #: The features' names; None where instances are lists or texts.
    names: tuple[str, ...] | None = None
    #: The shape of an instance that is a list; () is a text.
    shape: tuple[int, ...] = ()

    def instance(self, cells: Sequence[str]) -> Any:
        """The instance in a row that has a cell for each column. Not checked against the contract yet."""
        values = [read(cells[position]) for position, read in self.readings]
        if self.names is not None:
            return dict(zip(self.names, values, strict=True))
        return _nested(values, self.shape) if self.shape else values[0]


def match_columns(contract: Contract, header: Sequence[str], chosen: Sequence[str] = ()) -> Columns:
    """Find the contract's values among the columns of a file.

    Named features are found by name. `chosen` names the columns of a list's values in their order, or of a
    text; without it a list takes all columns as they stand, and a text the one named `text` or the only one.
    Raises InvalidInput naming what is missing, with near names.
    """
    _refuse_doubles(header)
    lacking = [name for name in chosen if name not in header]
    if lacking:
        raise InvalidInput(_lacks("asked for with --column", lacking, header))
    match contract.input:
        case Named(features=features):
            if chosen:
                raise InvalidInput(
                    f"{contract.model}@{contract.version} takes named features, found by their names in the "
                    "file; --column is for models that take lists or texts"
                )
            return _named(f"that {contract.model}@{contract.version} takes", features, header)
        case Array() as array:
            return _array(contract, array, header, chosen)
        case Text():
            return _text(contract, header, chosen)


def _refuse_doubles(header: Sequence[str]) -> None:
    seen: dict[str, int] = {}
    for number, name in enumerate(header, start=1):
        if name in seen:
            raise InvalidInput(
                f"columns {seen[name]} and {number} are both named {_shown(name)}; rename one of them"
            )
        seen[name] = number


def _named(whose: str, features: Sequence[Feature], header: Sequence[str]) -> Columns:
    position = {name: number for number, name in enumerate(header)}
    lacking = [feature.name for feature in features if feature.name not in position]
    if lacking:
        raise InvalidInput(_lacks(whose, lacking, header))
    return Columns(
        readings=tuple((position[feature.name], cell_reader(feature)) for feature in features),
        names=tuple(feature.name for feature in features),
    )


def _array(contract: Contract, array: Array, header: Sequence[str], chosen: Sequence[str]) -> Columns:
    positions = [list(header).index(name) for name in chosen] or list(range(len(header)))
    wanted = prod(array.shape)
    title = f"{contract.model}@{contract.version}"
    if len(positions) != wanted:
        raise InvalidInput(
            f"{title} takes {wanted} values a row, and the file has {len(positions)} columns for them; "
            "name the columns to send with --column, in order"
        )
    if not chosen and _looks_like_values(header):
        raise InvalidInput(
            "the first line holds values, and a CSV begins with a line of column names; put one before it"
        )
    read = cell_reader(Feature(name="", kind=array.kind, nullable=array.nullable))
    return Columns(readings=tuple((position, read) for position in positions), shape=array.shape)


def _text(contract: Contract, header: Sequence[str], chosen: Sequence[str]) -> Columns:
    names = list(chosen) or [name for name in header if name == "text"] or list(header)
    if len(names) != 1:
        raise InvalidInput(
            f"{contract.model}@{contract.version} takes a text, and the file has {len(header)} columns, none of "
            "them named 'text'; say which it is with --column"
        )
    # An empty text is a text.
    return Columns(readings=((list(header).index(names[0]), str),))


def _looks_like_values(header: Sequence[str]) -> bool:
    if not all(isinstance(_number(name), float) for name in header):
        return False
    # pandas names the columns of a bare array 0, 1, 2, ...
    return list(header) not in ([str(n + first) for n in range(len(header))] for first in (0, 1))


def _lacks(whose: str, lacking: Sequence[str], header: Sequence[str]) -> str:
    named = ", ".join(_with_near(name, header) for name in lacking[:10])
    more = f" and {len(lacking) - 10} more" if len(lacking) > 10 else ""
    columns = "a column" if len(lacking) == 1 else f"{len(lacking)} columns"
    found = ", ".join(_shown(name) for name in header[:20]) + (", ..." if len(header) > 20 else "")
    return f"the file lacks {columns} {whose}: {named}{more}; it has {found}"


def _with_near(name: str, header: Sequence[str]) -> str:
    lowered = {column[:64].strip().lower(): column for column in header}
    near = nearest_name(name.lower(), lowered)
    return f"{_shown(name)} (did you mean {_shown(lowered[near])}?)" if near else _shown(name)


def _shown(name: str) -> str:
    return repr(name if len(name) <= 64 else name[:60] + "...")


def _nested(values: list[Any], shape: tuple[int, ...]) -> list[Any]:
    if len(shape) == 1:
        return values
    step = prod(shape[1:])
    return [_nested(values[start : start + step], shape[1:]) for start in range(0, len(values), step)]


def cell_reader(feature: Feature) -> CellReader:
    """How a cell of a feature is read: a function from its text to a number, boolean, string or None."""
    if feature.kind == "category" and feature.categories is not None:
        return _category(feature.categories)
    if feature.kind in {"string", "category"}:
        # Where nothing may be missing, "NA" can only be a name or a country.
        return _missing if feature.nullable else _string
    return _READINGS[feature.kind]


def _number(text: str) -> Any:
    try:
        # Python reads 1_000 as a number; nobody else does.
        return float(text) if "_" not in text else text
    except ValueError:
        return _missing(text)


def _integer(text: str) -> Any:
    try:
        return int(text) if "_" not in text else text
    except ValueError:
        return _number(text)


def _boolean(text: str) -> Any:
    word = text.strip().lower()
    return _BOOLEANS[word] if word in _BOOLEANS else _missing(text)


def _string(text: str) -> Any:
    return text or None


def _missing(text: str) -> Any:
    return None if text.strip() in _MISSING else text


def _category(categories: tuple[str | int | float | bool, ...]) -> CellReader:
    known: dict[str, Any] = {}
    for category in categories:
        known.setdefault(str(category), category)
        if isinstance(category, bool):
            known.setdefault(str(category).lower(), category)
        elif isinstance(category, int | float):
            # A column of whole numbers with gaps is written by pandas as 1.0, 2.0.
            known.setdefault(str(float(category)), category)
            if float(category).is_integer():
                known.setdefault(str(int(category)), category)

    def read(text: str) -> Any:
        return known[text] if text in known else _missing(text)

    return read


_READINGS: dict[Kind, CellReader] = {
    "number": _number,
    "integer": _integer,
    "boolean": _boolean,
}
