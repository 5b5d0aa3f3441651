"""Whether a runtime predicts as scikit-learn does: classes are equal, numbers close."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

#: How far a number may be from scikit-learn's, as a part of the largest number the method gave. 32-bit floats
#: have seven digits, and some are lost in sums.
TOLERANCE = 1e-5


class Parity(NamedTuple):
    """What a comparison found."""

    #: The largest difference of two numbers, among predictions that are alike otherwise.
    difference: float
    #: The places of predictions that are not those expected.
    mismatches: tuple[int, ...]


def compare_predictions(expected: Sequence[Any], got: Sequence[Any]) -> Parity:
    """Compare predictions of one method, one by one: numbers within the tolerance, all else exactly."""
    floats = [abs(number) for prediction in expected for number in _floats(prediction)]
    allowed = TOLERANCE * max(floats, default=0.0)
    largest, wrong = 0.0, []
    for place in range(max(len(expected), len(got))):
        both = place < len(expected) and place < len(got)
        difference = max_difference(expected[place], got[place]) if both else None
        if difference is None or difference > allowed:
            wrong.append(place)
        if difference is not None:
            largest = max(largest, difference)
    return Parity(largest, tuple(wrong))


def _floats(prediction: Any) -> Iterator[float]:
    if isinstance(prediction, list):
        for inner in prediction:
            yield from _floats(inner)
    elif isinstance(prediction, float):
        yield prediction


def max_difference(expected: Any, got: Any) -> float | None:
    """The largest difference of two numbers in two predictions; None where they differ in anything else."""
    if isinstance(expected, list) and isinstance(got, list):
        if len(expected) != len(got):
            return None
        largest = 0.0
        for one, other in zip(expected, got, strict=True):
            difference = max_difference(one, other)
            if difference is None:
                return None
            largest = max(largest, difference)
        return largest
    if isinstance(expected, float) and isinstance(got, float):
        return abs(expected - got)
    return 0.0 if expected == got and type(expected) is type(got) else None
