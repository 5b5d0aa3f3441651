"""Build a column of datetimes or dates from their texts, with the unit and zone of the fitted column."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from headrace.catalog.contract import Feature
from headrace.catalog.datetimes import parse_datetime, parse_nanoseconds
from headrace.errors import InvalidInput, ModelError

#: The type of a column for which the contract names none.
_USUAL = "datetime64[us]"


def make_datetime_builder(feature: Feature) -> Callable[[Sequence[Any]], Any]:
    """Return a function that builds the column of a feature of datetimes or dates; None is a missing value.

    Raises ModelError for a type that no column of datetimes has here.
    """
    if feature.kind == "date" and feature.dtype == "object":
        return lambda values: pd.Series([text and parse_datetime(text).date() for text in values], dtype=object)
    unit, zone = read_datetime_type(feature)

    def build(texts: Sequence[Any]) -> Any:
        column = _to_array(texts, unit)
        return column if zone is None else pd.DatetimeIndex(column).tz_localize("UTC").tz_convert(zone)

    return build


def read_datetime_type(feature: Feature) -> tuple[str, Any]:
    """Return the unit and the zone of a feature's column; None if it has no zone.

    Raises ModelError for a type that no column of datetimes has here.
    """
    try:
        dtype: Any = pd.api.types.pandas_dtype(feature.dtype or _USUAL)
        is_datetime = isinstance(dtype, pd.DatetimeTZDtype) or dtype.kind == "M"
    except (TypeError, ValueError, KeyError) as error:
        raise ModelError(_describe_unknown(feature, str(error))) from None
    if not is_datetime:
        raise ModelError(_describe_unknown(feature, "it is no type of datetimes"))
    if isinstance(dtype, pd.DatetimeTZDtype):
        return dtype.unit, dtype.tz
    return np.datetime_data(dtype)[0], None


def _to_array(texts: Sequence[Any], unit: str) -> Any:
    """Convert texts to an array of datetimes in UTC or without a zone. Raises InvalidInput."""
    moments = [text if text is None else parse_datetime(text).replace(tzinfo=None) for text in texts]
    array = np.array(moments, dtype="datetime64[us]")
    if unit != "ns":
        return array.astype(f"datetime64[{unit}]")
    if (array < _FIRST).any() or (array > _LAST).any():
        raise InvalidInput("a datetime does not fit in the model's type datetime64[ns]: the years 1678 to 2261")
    extra = [0 if text is None else parse_nanoseconds(text) for text in texts]
    return array.astype("datetime64[ns]") + np.array(extra, dtype="timedelta64[ns]")


_FIRST, _LAST = np.datetime64("1678-01-01", "us"), np.datetime64("2262-01-01", "us")


def _describe_unknown(feature: Feature, reason: str) -> str:
    return f"feature {feature.name!r} was fitted as {feature.dtype!r}, which cannot be built here: {reason}"
