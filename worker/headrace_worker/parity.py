"""Compare a runtime's predictions with scikit-learn's: classes must be equal, numbers close."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

#: The largest accepted difference of a number to scikit-learn's, relative to the largest number the method
#: predicted. 32-bit floats have seven digits, and sums lose one or two of them.
TOLERANCE = 1e-5


class Parity(NamedTuple):
    """The result of a comparison."""

    #: The largest difference of two numbers, among predictions that are equal otherwise.
    difference: float
    #: The indexes of the predictions that differ from those expected.
    mismatches: tuple[int, ...]


def compare_predictions(expected: Sequence[Any], actual: Sequence[Any]) -> Parity:
    """Compare the predictions of one method: numbers within the tolerance, everything else exactly."""
    floats = [abs(number) for prediction in expected for number in _iter_floats(prediction)]
    allowed = TOLERANCE * max(floats, default=0.0)
    largest, mismatches = 0.0, []
    for index in range(max(len(expected), len(actual))):
        has_both = index < len(expected) and index < len(actual)
        difference = max_difference(expected[index], actual[index]) if has_both else None
        if difference is None or difference > allowed:
            mismatches.append(index)
        if difference is not None:
            largest = max(largest, difference)
    return Parity(largest, tuple(mismatches))


def _iter_floats(prediction: Any) -> Iterator[float]:
    if isinstance(prediction, list):
        for item in prediction:
            yield from _iter_floats(item)
    elif isinstance(prediction, dict):
        yield from _iter_floats(list(prediction.values()))
    elif isinstance(prediction, float):
        yield prediction


def max_difference(expected: Any, actual: Any) -> float | None:
    """Return the largest difference of two numbers in two predictions; None if they differ in anything else."""
    if isinstance(expected, list) and isinstance(actual, list):
        if len(expected) != len(actual):
            return None
        largest = 0.0
        for expected_item, actual_item in zip(expected, actual, strict=True):
            difference = max_difference(expected_item, actual_item)
            if difference is None:
                return None
            largest = max(largest, difference)
        return largest
    if isinstance(expected, dict) and isinstance(actual, dict):
        if expected.keys() != actual.keys():
            return None
        return max_difference(list(expected.values()), [actual[name] for name in expected])
    if isinstance(expected, float) and isinstance(actual, float):
        return abs(expected - actual)
    return 0.0 if expected == actual and type(expected) is type(actual) else None
