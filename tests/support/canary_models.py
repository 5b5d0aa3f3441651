"""A model of the Python runtime for tests of canaries: it predicts its example, and fails in production."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Failing:
    """A model that predicts the example's rows, and fails on any other."""

    def load(self, data: bytes) -> None:
        """Load nothing."""

    def predict(self, method: str, instances: Sequence[Any]) -> list[float]:
        """Return 1.0 for each row of the example. Raises ValueError for another row."""
        if any(row[0] > 2.0 for row in instances):
            raise ValueError("a row that is not in the example")
        return [1.0 for _ in instances]


def failing() -> Failing:
    """Make the model."""
    return Failing()
