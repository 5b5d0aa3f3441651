"""How values were distributed when a version was packaged: each feature, and what the default method gives.

A value falls into one cell of its column. Jobs are counted by the same cells (`drift`), so there is nothing to
keep of a job but numbers of cells, and as many of them however many jobs there are.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import msgspec

from headrace.catalog.contract import Array, Contract, Named, Output, Text

#: Rows that are enough to tell a distribution by, and the most that are looked at.
LEAST_ROWS, _MOST_ROWS = 100, 10_000
#: Bins of a column of numbers at the most, and the rows each is to have.
_BINS, _ROWS_A_BIN = 10, 20
#: Values of a column that have a cell of their own; the others share one.
_VALUES = 20
#: Columns: an image has no features that mean something each, and a text has its length.
_MOST_FEATURES, _MOST_OUTPUTS = 256, 32

Value = str | int | float | bool


class Column(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One feature, or one number of a prediction."""

    name: str
    #: The rows in each cell: the bins between `bounds`, or the `values` and all others; then those without any.
    rows: tuple[int, ...]
    #: Of numbers: where one bin ends and the next begins.
    bounds: tuple[float, ...] = ()
    #: Of anything else: what was seen most. None for numbers.
    values: tuple[Value, ...] | None = None


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """The columns of a version, by the rows it was packaged with."""

    features: tuple[Column, ...]
    #: Of the default method.
    predictions: tuple[Column, ...]

    @property
    def columns(self) -> tuple[Column, ...]:
        """All, in the order their cells are counted in."""
        return (*self.features, *self.predictions)

    @property
    def cells(self) -> int:
        """Cells of all columns."""
        return sum(len(column.rows) for column in self.columns)


def build_profile(contract: Contract, instances: Sequence[Any], predictions: Sequence[Any]) -> Profile:
    """The profile of instances that fit the contract, and of what its default method gave for them."""
    return Profile(
        features=_columns(_features(contract.input), instances),
        predictions=_columns(_outputs(contract.methods[contract.method]), predictions),
    )


def sampled(instances: Sequence[Any]) -> Sequence[Any]:
    """As many of the instances as are looked at, from all over."""
    return instances[:: math.ceil(len(instances) / _MOST_ROWS) or 1]


class CellLocator:
    """In which cells of a profile the values of instances and predictions fall."""

    def __init__(self, profile: Profile, contract: Contract) -> None:
        places = iter(_placed(profile.columns))
        self._features = [(get, next(places)) for _, get, _ in _features(contract.input)]
        self._outputs = [(get, next(places)) for _, get, _ in _outputs(contract.methods[contract.method])]
        self.method = contract.method

    def locate_instance(self, instance: Any) -> Iterator[int]:
        """The numbers of the cells of an instance that fits the contract."""
        return (place(get(instance)) for get, place in self._features)

    def locate_prediction(self, prediction: Any) -> Iterator[int]:
        """The numbers of the cells of a prediction of the default method."""
        return (place(get(prediction)) for get, place in self._outputs)


#: A column's name, what finds its value in an instance or prediction, and whether its values are numbers.
_Source = tuple[str, Callable[[Any], Any], bool]


def _features(given: Named | Array | Text) -> list[_Source]:
    match given:
        case Text():
            return [("length", len, True)]
        case Named(features=features):
            return [
                (feature.name, _item(feature.name), feature.kind in {"number", "integer"})
                for feature in features[:_MOST_FEATURES]
            ]
        case Array(shape=(width,), kind=kind) if width <= _MOST_FEATURES:
            return [(str(place), _item(place), kind in {"number", "integer"}) for place in range(width)]
        case Array():
            return []


def _outputs(output: Output) -> list[_Source]:
    match output.shape:
        case ():
            return [("prediction", lambda prediction: prediction, output.classes is None)]
        case (width,) if width <= _MOST_OUTPUTS:
            names = output.classes if output.classes and len(output.classes) == width else range(width)
            return [(f"prediction[{name}]", _item(place), True) for place, name in enumerate(names)]
        case _:
            return []


def _item(of: Any) -> Callable[[Any], Any]:
    def get(instance: Any) -> Any:
        return instance[of]

    return get


def _columns(sources: Iterable[_Source], rows: Sequence[Any]) -> tuple[Column, ...]:
    return tuple(_column(name, [get(row) for row in rows], numbers=numbers) for name, get, numbers in sources)


def _column(name: str, values: Sequence[Any], *, numbers: bool) -> Column:
    present = [value for value in values if value is not None]
    # What gives numbers by its contract may give labels all the same: an output says its shape only.
    if numbers and all(isinstance(value, int | float) for value in present):
        empty = Column(name=name, rows=(), bounds=_bounds(sorted(present)))
    else:
        seen = Counter(_key(value) for value in present)
        empty = Column(name=name, rows=(), values=tuple(value for (_, value), _ in seen.most_common(_VALUES)))
    place = _placing(empty, 0)
    counted = Counter(place(value) for value in values)
    return msgspec.structs.replace(empty, rows=tuple(counted[cell] for cell in range(_width(empty))))


def _bounds(values: Sequence[float]) -> tuple[float, ...]:
    """Bounds of bins with about as many of the sorted values in each; of a few different values, one each."""
    bins = max(2, min(_BINS, len(values) // _ROWS_A_BIN))
    different = sorted(set(values))
    if len(different) <= bins:
        return tuple(lower / 2 + upper / 2 for lower, upper in pairwise(different))
    chosen = {float(values[len(values) * part // bins]) for part in range(1, bins)}
    return tuple(sorted(chosen - {float(different[0])}))


def _width(column: Column) -> int:
    return len(column.bounds if column.values is None else column.values) + 2


def _placed(columns: Iterable[Column]) -> Iterator[Callable[[Any], int]]:
    first = 0
    for column in columns:
        yield _placing(column, first)
        first += _width(column)


def _placing(column: Column, first: int) -> Callable[[Any], int]:
    """What gives the number of the cell of a value; the column's first cell has the number `first`."""
    bounds, missing = column.bounds, first + _width(column) - 1
    if column.values is None:

        def of_number(value: Any) -> int:
            return first + bisect_right(bounds, value) if isinstance(value, int | float) else missing

        return of_number
    places = {_key(value): first + place for place, value in enumerate(column.values)}

    def of_value(value: Any) -> int:
        return missing if value is None else places.get(_key(value), missing - 1)

    return of_value


def _key(value: Any) -> tuple[bool, Any]:
    # 1 == True in Python, but a category 1 is not a category True. Nested output has no hash.
    return isinstance(value, bool), value if isinstance(value, str | int | float) else str(value)
