"""The predictions and errors of a table."""

from __future__ import annotations

from typing import Any

import msgspec
import pyarrow as pa

from headrace.errors import ModelError
from headrace.wire.outcome import Reason
from headrace_worker.manifest import Manifest
from headrace_worker.runtimes.prediction_column import from_values, to_json_column, to_json_values


class RowError(msgspec.Struct, frozen=True, kw_only=True):
    """The reason why a row has no prediction, as a job of this row alone would report it."""

    reason: Reason
    #: The name of the exception, and its message (never a value out of the row).
    error: str
    message: str


class TableResult(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a table."""

    #: An Arrow array with an entry for each row: null where a row failed, or where the model predicts no number.
    predictions: Any
    #: By the number of the row in the table, from 0.
    errors: dict[int, RowError]

    def to_json(self) -> list[Any]:
        """Return the predictions as JSON has them, as a job's are."""
        return to_json_values(self.predictions)


def prediction_type(manifest: Manifest, method: str) -> Any:
    """Return the Arrow type of a method's predictions; None if the version's example does not show it.

    It is the same for all tables, so that all parts of a run have one schema: that of the classes, or else of the
    example's predictions.
    """
    output = manifest.contract.methods[method]
    if output.shape == () and output.classes:
        return from_values(list(output.classes)).type
    expected = [value for value in manifest.example.expected.get(method, []) if value is not None]
    kind = from_values(expected).type if expected else None
    return None if kind is None or _holds_null(kind) else kind


def to_type(predictions: Any, kind: Any) -> Any:
    """Return an array of predictions in the type of its method. Raises ModelError for values it cannot hold."""
    if predictions.type == kind or kind is None:
        return predictions
    if isinstance(kind, pa.JsonType):
        return to_json_column(to_json_values(predictions))
    try:
        return predictions.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise ModelError(
            f"the model returned predictions of the type {predictions.type}, and those of its example are of the "
            f"type {kind}; package it with an example whose predictions are of all types it returns"
        ) from error


def _holds_null(kind: Any) -> bool:
    """Decide whether a type leaves open what values it has."""
    types = pa.types
    if types.is_struct(kind):
        return any(_holds_null(field.type) for field in kind)
    return bool(types.is_null(kind)) or (bool(types.is_list(kind)) and _holds_null(kind.value_type))
