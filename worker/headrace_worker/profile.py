"""The distribution of a version's features and predictions, from the rows it was packaged with.

A column's values are counted in cells. Jobs are counted in the same cells (`drift`), so only the counts are
stored, and their number does not grow with the number of jobs.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import msgspec

from headrace.catalog.contract import Array, Contract, Named, Output, Text, Tokens

#: The fewest rows a profile is built from, and the most.
MIN_ROWS, _MAX_ROWS = 100, 10_000
#: The largest number of bins in a column of numbers, and the rows that each bin should have.
_MAX_BINS, _ROWS_PER_BIN = 10, 20
#: The largest number of values in a column that have their own cell; all others share one.
_MAX_VALUES = 20
#: The largest number of columns. Wider input, such as an image, has no features that mean something alone.
_MAX_FEATURES, _MAX_OUTPUTS = 256, 32

Value = str | int | float | bool


class Column(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One feature, or one number of a prediction."""

    name: str
    #: The number of rows in each cell: the bins between `bounds`, or each of `values` and all others. The last
    #: cell counts missing values.
    rows: tuple[int, ...]
    #: For numbers: the bounds between bins.
    bounds: tuple[float, ...] = ()
    #: For other values: the most frequent ones. None for numbers.
    values: tuple[Value, ...] | None = None


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """The columns of a version, counted over the rows it was packaged with."""

    features: tuple[Column, ...]
    #: The columns of the default method's predictions.
    predictions: tuple[Column, ...]

    @property
    def columns(self) -> tuple[Column, ...]:
        """All columns, in the order in which their cells are numbered."""
        return (*self.features, *self.predictions)

    @property
    def cells(self) -> int:
        """The number of cells of all columns."""
        return sum(len(column.rows) for column in self.columns)


def build_profile(contract: Contract, instances: Sequence[Any], predictions: Sequence[Any]) -> Profile:
    """Build the profile of instances that fit the contract, and of the default method's predictions for them."""
    return Profile(
        features=_count_columns(_feature_sources(contract.input), instances),
        predictions=_count_columns(_output_sources(contract.methods[contract.method]), predictions),
    )


def select_rows(instances: Sequence[Any]) -> Sequence[Any]:
    """Select the instances to build a profile from, evenly spaced."""
    return instances[:: math.ceil(len(instances) / _MAX_ROWS) or 1]


class CellLocator:
    """Finds the cells of a profile that the values of instances and predictions belong to."""

    def __init__(self, profile: Profile, contract: Contract) -> None:
        locators = iter(_column_locators(profile.columns))
        self._features = [(get, next(locators)) for _, get, _ in _feature_sources(contract.input)]
        self._outputs = [(get, next(locators)) for _, get, _ in _output_sources(contract.methods[contract.method])]
        self.method = contract.method

    def locate_instance(self, instance: Any) -> Iterator[int]:
        """Yield the cell numbers of an instance that fits the contract."""
        return (locate(get(instance)) for get, locate in self._features)

    def locate_prediction(self, prediction: Any) -> Iterator[int]:
        """Yield the cell numbers of a prediction of the default method."""
        return (locate(get(prediction)) for get, locate in self._outputs)


#: A column's name, a function that returns its value from an instance or prediction, and True for numbers.
_Source = tuple[str, Callable[[Any], Any], bool]


def _feature_sources(input_schema: Named | Array | Text | Tokens) -> list[_Source]:
    match input_schema:
        case Text() | Tokens():
            return [("length", len, True)]
        case Named(features=features):
            return [
                (
                    feature.name,
                    (_make_optional_getter if feature.optional else _make_getter)(feature.name),
                    feature.kind in {"number", "integer"},
                )
                for feature in features[:_MAX_FEATURES]
                # Datetimes move on by themselves: the profile of the past says nothing about them.
                if feature.kind not in {"datetime", "date"}
            ]
        case Array(shape=(width,), kind=kind) if width <= _MAX_FEATURES:
            return [(str(index), _make_getter(index), kind in {"number", "integer"}) for index in range(width)]
        case Array():
            return []


def _output_sources(output: Output) -> list[_Source]:
    match output.shape:
        case ():
            return [("prediction", lambda prediction: prediction, output.classes is None)]
        case (width,) if width <= _MAX_OUTPUTS:
            names = output.classes if output.classes and len(output.classes) == width else range(width)
            return [(f"prediction[{name}]", _make_getter(index), True) for index, name in enumerate(names)]
        case _:
            return []


def _make_getter(key: Any) -> Callable[[Any], Any]:
    def get(container: Any) -> Any:
        return container[key]

    return get


def _make_optional_getter(key: str) -> Callable[[Any], Any]:
    return lambda container: container.get(key)


def _count_columns(sources: Iterable[_Source], rows: Sequence[Any]) -> tuple[Column, ...]:
    return tuple(
        _count_column(name, [get(row) for row in rows], numbers=numbers) for name, get, numbers in sources
    )


def _count_column(name: str, values: Sequence[Any], *, numbers: bool) -> Column:
    present = [value for value in values if value is not None]
    # The contract of an output names its shape only, so a method without classes may still predict labels.
    if numbers and all(isinstance(value, int | float) for value in present):
        empty = Column(name=name, rows=(), bounds=_choose_bounds(sorted(present)))
    else:
        frequent = Counter(_key(value) for value in present).most_common(_MAX_VALUES)
        empty = Column(name=name, rows=(), values=tuple(value for (_, value), _ in frequent))
    locate = _make_locator(empty, 0)
    counts = Counter(locate(value) for value in values)
    return msgspec.structs.replace(empty, rows=tuple(counts[cell] for cell in range(_cell_count(empty))))


def _choose_bounds(values: Sequence[float]) -> tuple[float, ...]:
    """Choose bounds of bins with about equally many of the sorted values; few different values get a bin each."""
    bins = max(2, min(_MAX_BINS, len(values) // _ROWS_PER_BIN))
    different = sorted(set(values))
    if len(different) <= bins:
        return tuple(lower / 2 + upper / 2 for lower, upper in pairwise(different))
    bounds = {float(values[len(values) * number // bins]) for number in range(1, bins)}
    return tuple(sorted(bounds - {float(different[0])}))


def _cell_count(column: Column) -> int:
    return len(column.bounds if column.values is None else column.values) + 2


def _column_locators(columns: Iterable[Column]) -> Iterator[Callable[[Any], int]]:
    first_cell = 0
    for column in columns:
        yield _make_locator(column, first_cell)
        first_cell += _cell_count(column)


def _make_locator(column: Column, first_cell: int) -> Callable[[Any], int]:
    """Return a function that finds the cell number of a value. The column's first cell has number `first_cell`."""
    bounds, missing = column.bounds, first_cell + _cell_count(column) - 1
    if column.values is None:

        def locate_number(value: Any) -> int:
            return first_cell + bisect_right(bounds, value) if isinstance(value, int | float) else missing

        return locate_number
    cells = {_key(value): first_cell + index for index, value in enumerate(column.values)}

    def locate_value(value: Any) -> int:
        return missing if value is None else cells.get(_key(value), missing - 1)

    return locate_value


def _key(value: Any) -> tuple[bool, Any]:
    # 1 == True in Python, but a category 1 is not a category True. Nested output has no hash.
    return isinstance(value, bool), value if isinstance(value, str | int | float) else str(value)
