"""Models of the Python runtime for the tests of canaries: right when proven, wrong in production."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Failing:
    """Answers the example as it should, and fails on everything else."""

    def load(self, data: bytes) -> None:
        """There is nothing to load."""

    def predict(self, method: str, instances: Sequence[Any]) -> list[float]:
        """1.0 for each row of the example."""
        if any(row[0] > 2.0 for row in instances):
            raise ValueError("beyond what it knows")
        return [1.0 for _ in instances]


def failing() -> Failing:
    """The factory."""
    return Failing()
