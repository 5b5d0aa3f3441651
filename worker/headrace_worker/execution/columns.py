"""Jobs whose instances are in columns: open them, and predict them as a table.

Each row fails alone: its error stands beside the predictions of the others. pyarrow is imported where it is used,
as it is an extra. A worker without it refuses such jobs, and says in its status that it does not take them.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from headrace.errors import InvalidInput
from headrace.wire.arrow import ArrowColumns, decode_columns
from headrace.wire.columns import Columns, ColumnsForm, EncodedColumns
from headrace.wire.limits import JobLimits

if TYPE_CHECKING:
    from headrace_worker.models.loader import LoadedModel


def accepted_forms() -> tuple[ColumnsForm, ...]:
    """Return the forms of columns that this worker takes."""
    return ("arrow", "json") if find_spec("pyarrow") else ()


def open_columns(columns: Columns, limits: JobLimits) -> Columns:
    """Decode the instances of a job. Raises InvalidInput."""
    if not accepted_forms():
        raise InvalidInput(
            "the job's instances are in columns, which this worker takes with pyarrow only (pip install "
            "'headrace-worker[parquet]'); send a list of instances"
        )
    if isinstance(columns, EncodedColumns):
        return decode_columns(columns, limits)
    return ArrowColumns(_build_batch(columns))


def _build_batch(columns: Any) -> Any:
    import pyarrow as pa

    arrays = []
    for name, values in columns.columns.items():
        try:
            arrays.append(pa.array(values))
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            raise InvalidInput(
                f"column {name[:64]!r} holds values of several types; send a list of instances"
            ) from None
    return pa.RecordBatch.from_arrays(arrays, names=list(columns.columns))


def predict_columns(model: LoadedModel, method: str, columns: Columns) -> tuple[list[Any], dict[int, str] | None]:
    """Return the prediction of each instance, None for those that failed, and their errors by index.

    Raises InvalidInput if the columns as a whole do not fit the contract, and errors that are no instance's fault.
    """
    from headrace_worker.tables.predict import predict_table

    assert isinstance(columns, ArrowColumns)  # noqa: S101  # `open_columns` has made them
    result = predict_table(model, method, columns.batch)
    errors = {row: f"{error.reason}: {error.error}: {error.message}" for row, error in result.errors.items()}
    return result.to_json(), errors or None
