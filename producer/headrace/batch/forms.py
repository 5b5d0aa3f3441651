"""The form in which a batch sends its rows: in Arrow columns, in JSON columns, or one after the other.

Columns cost a fraction of the processor time, on both sides. They are sent only if all workers of the model take
them, and if every instance has a value for each column. Arrow columns need pyarrow here too.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from importlib.util import find_spec
from typing import Any, Literal

from headrace.catalog.contract import Array, Contract, Kind, Named
from headrace.wire.arrow import ArrowColumns
from headrace.wire.columns import Columns, JsonColumns

Form = Literal["arrow", "json", "rows"]

#: Rows in a job by default. In JSON columns fewer: their values are objects of Python, in memory in the client.
#: One after the other: many enough that the cost of a job is small for each row, few enough for several workers.
ROWS_PER_JOB: dict[Form, int] = {"arrow": 10_000, "json": 500, "rows": 100}
#: Bytes of the file in jobs under way; two are under way however large they are. In memory in the client, lines
#: that are sent in Arrow columns take about as much, rows of many numbers up to twenty times.
IN_FLIGHT_BYTES: dict[Form, int] = {"arrow": 8 * 1024**2, "json": 480 * 1024, "rows": 4 * 1024**2}
#: Kinds of values that need no conversion between text, JSON and Arrow.
_PLAIN_KINDS: frozenset[Kind] = frozenset({"number", "integer", "boolean", "string", "category"})


def choose_form(contract: Contract, accepted: Collection[str]) -> Form:
    """Return the form for instances of a contract. `accepted` are the forms of columns that the workers take."""
    if not has_columns(contract):
        return "rows"
    if "arrow" in accepted and find_spec("pyarrow"):
        return "arrow"
    return "json" if "json" in accepted else "rows"


def has_columns(contract: Contract) -> bool:
    """Decide whether every instance of a contract has a value for each column."""
    match contract.input:
        case Named(features=features):
            return not any(feature.optional for feature in features)
        case Array(shape=shape, kind=kind):
            return len(shape) == 1 and kind in _PLAIN_KINDS
        case _:
            return False


def to_columns(contract: Contract, instances: Sequence[Any], form: Form) -> Sequence[Any]:
    """Return valid instances in a form; one after the other if they have no other form."""
    if form == "rows" or not instances:
        return instances
    named = isinstance(contract.input, Named)
    if isinstance(contract.input, Named):
        names = [feature.name for feature in contract.input.features]
        columns = {name: [instance[name] for instance in instances] for name in names}
    else:
        columns = {str(number): list(values) for number, values in enumerate(zip(*instances, strict=True))}
    if form == "json":
        return JsonColumns(columns, len(instances), named=named)
    return _to_arrow(columns, named=named) or instances


def _to_arrow(columns: dict[str, list[Any]], *, named: bool) -> Columns | None:
    """Return columns as Arrow columns; None if one holds values that no Arrow type has."""
    import pyarrow as pa

    try:
        arrays = [pa.array(values) for values in columns.values()]
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        return None
    return ArrowColumns(pa.RecordBatch.from_arrays(arrays, names=list(columns)), named=named)
