"""Check one column: which of its values are certain to fit a feature, in the type that belongs to the feature.

A check that is not certain of a row calls it doubtful. Doubtful rows go through the check of instances, which
alone decides what is wrong and says so, so both ways accept the same rows and give the same errors.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.catalog.contract import Feature
from headrace_worker.runtimes.arrow_columns import decode, find_nulls, view_numbers
from headrace_worker.tables.datetimes import check_datetimes
from headrace_worker.tables.schema import category_type, feature_type

Mask = npt.NDArray[np.bool_]

#: From here on, floats do not hold each integer; and the first float that is no 64-bit integer.
_MAX_EXACT, _TOO_LARGE = 2.0**53, 2.0**63


class CheckedColumn(NamedTuple):
    """A column in the type of its feature."""

    #: Arbitrary where a row is doubtful. None if every row is.
    values: Any
    #: The rows that are not certain to be valid; None if all are certain.
    doubtful: Mask | None = None


#: A column of which no row is certain.
ALL_DOUBTFUL = CheckedColumn(None)


def check_column(feature: Feature, array: Any) -> CheckedColumn:
    """Check the values of a feature."""
    if pa.types.is_null(array.type):
        array = array.cast(feature_type(feature))
    try:
        checked = _check_kind(feature, array)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return ALL_DOUBTFUL
    if checked.values is None or feature.nullable:
        return checked
    return CheckedColumn(checked.values, _either(checked.doubtful, find_nulls(checked.values)))


def _check_kind(feature: Feature, array: Any) -> CheckedColumn:
    match feature.kind:
        case "number":
            return check_numbers(array, nullable=feature.nullable)
        case "integer":
            return check_integers(array)
        case "boolean":
            return check_booleans(array)
        case "string":
            return _check_texts(array)
        case "category" if feature.categories is None:
            return _check_open_category(feature, array)
        case "category":
            return _check_category(feature, array)
        case _:
            values, doubtful = check_datetimes(feature, array)
            return CheckedColumn(values, doubtful)


def check_numbers(array: Any, *, nullable: bool) -> CheckedColumn:
    """Check numbers: the column is of 64-bit floats. NaN is a missing value."""
    array = decode(array)
    kind = array.type
    if pa.types.is_decimal(kind):
        array = array.cast(pa.string()).cast(pa.float64())  # a text is rounded correctly, a decimal is not
    elif pa.types.is_integer(kind):
        return CheckedColumn(array.cast(pa.float64(), safe=False))
    elif not pa.types.is_floating(kind):
        return ALL_DOUBTFUL
    elif not pa.types.is_float64(kind):
        array = array.cast(pa.float64())
    values = view_numbers(array, np.float64)
    is_finite = np.isfinite(values)
    if is_finite.all():
        return CheckedColumn(array)
    doubtful = np.isinf(values) if nullable else ~is_finite
    return CheckedColumn(array, _except_nulls(doubtful, array))


def check_integers(array: Any) -> CheckedColumn:
    """Check integers: the column is of 64-bit integers."""
    array = decode(array)
    if pa.types.is_uint64(array.type):
        too_large = view_numbers(array, np.uint64) > np.iinfo(np.int64).max
        return CheckedColumn(array.cast(pa.int64(), safe=False), _except_nulls(too_large, array))
    if pa.types.is_integer(array.type):
        return CheckedColumn(array.cast(pa.int64()))
    floats = check_numbers(array, nullable=True).values
    if floats is None:
        return ALL_DOUBTFUL
    values = view_numbers(floats, np.float64)
    is_missing = np.isnan(values)
    if (nulls := find_nulls(floats)) is not None:
        is_missing |= nulls
    is_integer = (values == np.trunc(values)) & (np.abs(values) < _TOO_LARGE)
    integers = np.where(is_integer & ~is_missing, values, 0).astype(np.int64)
    return CheckedColumn(pa.array(integers, mask=is_missing), ~(is_integer | is_missing))


def check_booleans(array: Any) -> CheckedColumn:
    """Check booleans."""
    array = decode(array)
    return CheckedColumn(array) if pa.types.is_boolean(array.type) else ALL_DOUBTFUL


def _check_texts(array: Any) -> CheckedColumn:
    kind = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return ALL_DOUBTFUL
    array.validate(full=True)  # a file may hold bytes that are no UTF-8
    return CheckedColumn(array)


def _check_open_category(feature: Feature, array: Any) -> CheckedColumn:
    """Check categories of any value: texts, numbers and booleans stay what they are."""
    kind = decode(array[:0]).type
    if pa.types.is_integer(kind):
        return check_integers(array)
    if pa.types.is_boolean(kind):
        return check_booleans(array)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return check_numbers(array, nullable=feature.nullable)
    return _check_texts(array)


def _check_category(feature: Feature, array: Any) -> CheckedColumn:
    """Check categories: the column is a dictionary of the contract's categories, in their order."""
    categories = feature.categories or ()
    kind = category_type(categories)
    if kind is None:
        return ALL_DOUBTFUL
    if pa.types.is_dictionary(array.type):  # its few values are checked, and not each row
        words = _check_category(feature, array.dictionary)
        if words.values is None or words.doubtful is not None:
            return _check_category(feature, decode(array))
        codes = pc.take(words.values.indices, array.indices)
        return CheckedColumn(pa.DictionaryArray.from_arrays(codes, words.values.dictionary))
    if pa.types.is_string(kind):
        checked = _check_texts(array)
    elif pa.types.is_boolean(kind):
        checked = check_booleans(array)
    else:
        checked = _check_category_numbers(array, kind)
    if checked.values is None:
        return ALL_DOUBTFUL
    value_set = pa.array(categories, kind)
    values = checked.values if checked.values.type == kind else checked.values.cast(kind)
    codes = pc.index_in(values, value_set)
    doubtful = checked.doubtful
    if codes.null_count > values.null_count:
        is_unknown = codes.is_null().to_numpy(zero_copy_only=False)
        doubtful = _either(doubtful, _except_nulls(is_unknown, values))
    return CheckedColumn(pa.DictionaryArray.from_arrays(codes, value_set), doubtful)


def _check_category_numbers(array: Any, kind: Any) -> CheckedColumn:
    if pa.types.is_integer(kind):
        return check_integers(array)
    floats = check_numbers(array, nullable=True).values
    if floats is None:
        return ALL_DOUBTFUL
    values = view_numbers(floats, np.float64)
    is_missing = np.isnan(values)
    if (nulls := find_nulls(floats)) is not None:
        is_missing |= nulls
    # Floats beyond this stand for several integers, and Python compares an integer exactly.
    return CheckedColumn(pa.array(values, mask=is_missing), (np.abs(values) >= _MAX_EXACT) & ~is_missing)


def _except_nulls(doubtful: Mask, array: Any) -> Mask | None:
    """Return the doubtful rows that are not null; None if there are none. Bytes below a null are arbitrary."""
    nulls = find_nulls(array)
    if nulls is not None:
        doubtful = doubtful & ~nulls
    return doubtful if doubtful.any() else None


def _either(first: Mask | None, second: Mask | None) -> Mask | None:
    if first is None or second is None:
        return second if first is None else first
    return first | second
