"""The columns that a Predictor returns, for engines that ask before they call it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from headrace.errors import InvalidInput
from headrace.text import did_you_mean
from headrace_worker.runtimes.prediction_column import to_json_column, to_json_values

#: The names of the columns that are added.
PREDICTION, ERROR = "prediction", "error"


def column_names(source: Any) -> list[str]:
    """Return the names of the columns of a schema of Arrow or of Spark. Raises InvalidInput for another object."""
    if isinstance(source, pa.Schema) or type(source).__module__.startswith("pyspark."):
        return list(source.names)
    raise InvalidInput(
        f"a schema is one of pyarrow, or a StructType of Spark, as `frame.schema`; got a {type(source).__name__}"
    )


def output_schema(source: Any, names: Sequence[str], prediction: Any) -> Any:
    """Return the schema of a result: columns of the source, predictions of an Arrow type, and errors.

    `source` is a schema of Arrow or a StructType of Spark; the result is of the same library.
    """
    if isinstance(source, pa.Schema):
        added = [pa.field(PREDICTION, prediction), pa.field(ERROR, pa.string())]
        return pa.schema([*(source.field(name) for name in names), *added])
    from pyspark.sql.types import StringType, StructField, StructType

    fields = [source[name] for name in names]
    return StructType(
        [*fields, StructField(PREDICTION, _spark_type(prediction)), StructField(ERROR, StringType())]
    )


def result_type(kind: Any) -> Any:
    """Return the type of the column of predictions of an Arrow type; None is not known.

    Predictions that no type holds as they are, and those of no known type, are texts of JSON: engines do not have
    Arrow's own type of these.
    """
    return pa.string() if kind is None or isinstance(kind, pa.JsonType) else kind


def to_result(predictions: Any, kind: Any) -> Any:
    """Return an array of predictions in the type of the column."""
    if isinstance(predictions.type, pa.JsonType):
        return predictions.storage
    return predictions if predictions.type == kind else to_json_column(to_json_values(predictions)).storage


def columns_to_keep(keep: Sequence[str] | None, key: str | None, columns: Sequence[str]) -> list[str]:
    """Return the columns of a frame that its result has too, the key first. `keep` None is all of them.

    Raises InvalidInput if the frame lacks one, or if one has the name of a column that is added.
    """
    chosen = [*([key] if key is not None else []), *(columns if keep is None else keep)]
    names = list(dict.fromkeys(chosen))
    for name in names:
        if name not in columns:
            raise InvalidInput(f"the frame has no column {name!r} to keep{did_you_mean(name, columns)}")
        if name in {PREDICTION, ERROR}:
            raise InvalidInput(
                f"the frame has a column {name!r}, which the result adds; rename it, or choose the columns of the "
                "result with keep=[...]"
            )
    return names


def _spark_type(arrow: Any) -> Any:
    """Return Spark's type for the Arrow type of a prediction."""
    from pyspark.sql import types

    if pa.types.is_list(arrow):
        return types.ArrayType(_spark_type(arrow.value_type))
    if pa.types.is_struct(arrow):
        return types.StructType([types.StructField(field.name, _spark_type(field.type)) for field in arrow])
    if pa.types.is_boolean(arrow):
        return types.BooleanType()
    if pa.types.is_integer(arrow):
        return types.LongType()
    return types.DoubleType() if pa.types.is_floating(arrow) else types.StringType()
