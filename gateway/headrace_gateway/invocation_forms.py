"""The four JSON forms of MLflow's `/invocations`, to the instances of a job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from headrace.catalog.contract import Array, Contract, Named
from headrace_gateway.json_input import decode_json
from headrace_gateway.problems import Problem
from headrace_gateway.tables import check_names, make_instances, select_features

_FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")


class InvocationParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The options of a prediction."""

    method: str | None = None
    version: str | None = None
    priority: int = 0
    expires: float | None = None


class _Split(msgspec.Struct, forbid_unknown_fields=True):
    data: list[list[Any]]
    columns: list[str | int] | None = None
    index: Any = None


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    dataframe_split: _Split | UnsetType = UNSET
    dataframe_records: list[dict[str, Any]] | UnsetType = UNSET
    instances: list[Any] | UnsetType = UNSET
    inputs: Any | UnsetType = UNSET
    params: InvocationParams | None = None


_BODY = msgspec.json.Decoder(_Body)
_FIELDS = {"": _Body.__struct_fields__, "params": InvocationParams.__struct_fields__}


class Invocation(NamedTuple):
    """A decoded body, whose instances depend on a contract."""

    form: str
    content: Any
    params: InvocationParams

    def make_instances(self, contract: Contract) -> list[Any]:
        """Return the instances. Raises a Problem (400) for a table whose columns contradict each other."""
        match self.form:
            case "dataframe_split":
                return _read_split(contract, self.content)
            case "dataframe_records":
                return [_read_record(contract, record) for record in self.content]
            case "instances":
                return [_read_row(contract, row) for row in self.content]
            case _:
                return _read_inputs(contract, self.content)


def decode_invocation(body: bytes) -> Invocation:
    """Return the invocation in a JSON body. Raises a Problem (400) unless it has exactly one of the four forms."""
    decoded = decode_json(body, _BODY, _FIELDS)
    present = [form for form in _FORMS if getattr(decoded, form) is not UNSET]
    if len(present) != 1:
        raise _malformed(
            f"the body must have exactly one of {', '.join(_FORMS)}; it has {' and '.join(present) or 'none'}"
        )
    return Invocation(present[0], getattr(decoded, present[0]), decoded.params or InvocationParams())


def _read_split(contract: Contract, split: _Split) -> list[Any]:
    names = None if split.columns is None else [str(name) for name in split.columns]
    if names is not None:
        check_names(names)
        for number, row in enumerate(split.data):
            if len(row) != len(names):
                raise _malformed(
                    f"row {number} of dataframe_split.data has {len(row):,} values for {len(names):,} columns"
                )
        if names == [str(number) for number in range(len(names))] and isinstance(contract.input, Named):
            # The columns of a table that pandas made of a bare array.
            names = names if set(names) & {feature.name for feature in contract.input.features} else None
    return make_instances(contract, names, split.data)


def _read_record(contract: Contract, record: dict[str, Any]) -> Any:
    if isinstance(contract.input, Named):
        return select_features(contract, record)
    return make_instances(contract, None, [list(record.values())])[0]


def _read_row(contract: Contract, row: Any) -> Any:
    """Return the instance of a row: an object, a list of values in the contract's order, or a value alone."""
    if isinstance(contract.input, Named):
        if isinstance(row, list):
            return make_instances(contract, None, [row])[0]
        return select_features(contract, row)
    # TensorFlow Serving names the tensor of an instance: {"input": [...]}.
    return next(iter(row.values())) if isinstance(row, dict) and len(row) == 1 else row


def _read_inputs(contract: Contract, inputs: Any) -> list[Any]:
    if isinstance(inputs, Mapping):
        return _read_columns(contract, dict(inputs))
    return [_read_row(contract, row) for row in (inputs if isinstance(inputs, list) else [inputs])]


def _read_columns(contract: Contract, columns: dict[str, Any]) -> list[Any]:
    """Return the instances of columns by name: a list for each, or a value for each of one instance."""
    if len(columns) == 1 and isinstance(contract.input, Array):
        (rows,) = columns.values()
        return rows if isinstance(rows, list) else [rows]
    lists = [name for name, values in columns.items() if isinstance(values, list)]
    if not lists:
        return [_read_record(contract, columns)]
    if len(lists) < len(columns):
        raise _malformed(f"`inputs` has a list for {lists[0][:64]!r} and a single value for another column")
    values = {name: _squeeze(column) for name, column in columns.items()}
    length = len(values[lists[0]])
    for name, column in values.items():
        if len(column) != length:
            raise _malformed(
                f"`inputs` has {len(column):,} values for {name[:64]!r}, and {length:,} for {lists[0][:64]!r}"
            )
    return make_instances(contract, list(values), zip(*values.values(), strict=True))


def _squeeze(column: list[Any]) -> list[Any]:
    """Return a column without a second dimension of 1, which numpy's columns of a matrix have."""
    if column and all(isinstance(value, list) and len(value) == 1 for value in column):
        return [value[0] for value in column]
    return column


def _malformed(detail: str) -> Problem:
    return Problem(400, "malformed-body", detail)
