"""Check a column of datetimes or dates: timestamps, days, or texts in the usual forms of ISO 8601."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.catalog.contract import Feature
from headrace.catalog.datetimes import PLAIN_DATE, PLAIN_DATETIME, PLAIN_INSTANT
from headrace_worker.runtimes.arrow_columns import decode, find_nulls, view_numbers
from headrace_worker.tables.schema import datetime_type

#: The years that texts of ISO 8601 have.
_FIRST, _LAST = np.datetime64("0001-01-01", "us"), np.datetime64("9999-12-31T23:59:59.999999", "us")
#: Those of datetimes in nanoseconds.
_FIRST_NS, _LAST_NS = np.datetime64("1678-01-01", "us"), np.datetime64("2262-01-01", "us")
#: Arrow reads at most 9 digits of a second, and the type of microseconds 6.
_LONG_FRACTION = r"\.[0-9]{7}"


def check_datetimes(feature: Feature, array: Any) -> tuple[Any, npt.NDArray[np.bool_] | None]:
    """Return the column in the type of its feature, and the rows that are not certain to be valid.

    The column is None if no row is certain, the rows are None if all are.
    """
    array = decode(array)
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        return _check_texts(feature, array)
    if pa.types.is_timestamp(array.type):
        if (array.type.tz is not None) != feature.has_zone:
            return None, None
        moments = view_numbers(array, np.int64).astype(f"datetime64[{array.type.unit}]")
    elif pa.types.is_date32(array.type) and not feature.has_zone:
        moments = view_numbers(array, np.int32).astype("datetime64[D]")
    else:
        return None, None
    return _check_moments(feature, moments, find_nulls(array))


def _check_moments(
    feature: Feature, moments: npt.NDArray[np.datetime64], nulls: npt.NDArray[np.bool_] | None
) -> tuple[Any, npt.NDArray[np.bool_] | None]:
    kind = datetime_type(feature)
    first, last = (_FIRST_NS, _LAST_NS) if kind.unit == "ns" or _is_in_nanoseconds(moments) else (_FIRST, _LAST)
    unit = np.datetime_data(moments.dtype)[0]
    # Compared in the column's own unit: other units may not hold its values.
    doubtful = (moments < first.astype(f"datetime64[{unit}]")) | (moments > last.astype(f"datetime64[{unit}]"))
    doubtful |= np.isnat(moments)
    if nulls is not None:
        doubtful &= ~nulls
    if doubtful.any() or nulls is not None:
        moments = moments.copy()
        moments[doubtful if nulls is None else doubtful | nulls] = 0
    if feature.kind == "date":
        days = moments.astype("datetime64[D]")
        doubtful |= days != moments
        return pa.array(days.astype(np.int32), pa.date32(), mask=nulls), doubtful if doubtful.any() else None
    numbers = moments.astype(f"datetime64[{kind.unit}]").astype(np.int64)
    return pa.array(numbers, pa.int64(), mask=nulls).cast(kind), doubtful if doubtful.any() else None


def _is_in_nanoseconds(moments: npt.NDArray[np.datetime64]) -> bool:
    return np.datetime_data(moments.dtype)[0] == "ns"


def _check_texts(feature: Feature, array: Any) -> tuple[Any, npt.NDArray[np.bool_] | None]:
    array.validate(full=True)
    kind = datetime_type(feature)
    pattern = PLAIN_DATE if feature.kind == "date" else PLAIN_INSTANT if feature.has_zone else PLAIN_DATETIME
    is_plain = pc.match_substring_regex(array, pattern.replace(r"\Z", r"\z"))
    if feature.kind != "date":
        is_plain = pc.and_(is_plain, pc.invert(pc.match_substring_regex(array, _LONG_FRACTION)))
    is_plain = is_plain.fill_null(True)
    doubtful = ~is_plain.to_numpy(zero_copy_only=False)
    if doubtful.any():
        array = pc.if_else(is_plain, array, pa.scalar(None, array.type))
    micros = array.cast(pa.date32() if feature.kind == "date" else pa.timestamp("us", tz=kind.tz))
    nulls = find_nulls(micros)
    values, other = check_datetimes(feature, micros) if nulls is None or not nulls.all() else (None, None)
    if values is None:
        return None, None
    doubtful = doubtful if other is None else doubtful | other
    return values, doubtful if doubtful.any() else None
