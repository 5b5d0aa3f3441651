"""The model of the incident drill; its second version fails on instances unlike the example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Churn:
    """A model that predicts 0.25 for every instance."""

    def load(self, data: bytes) -> None:
        """Load nothing."""

    def predict(self, method: str, instances: Sequence[Any]) -> list[float]:
        """Return 0.25 for each instance."""
        return [0.25 for _ in instances]


class FaultyChurn(Churn):
    """A version that fails for customers over 90."""

    def predict(self, method: str, instances: Sequence[Any]) -> list[float]:
        """Return 0.25 for each instance. Raises KeyError for an age over 90."""
        for instance in instances:
            if instance["age"] > 90:
                raise KeyError("segment")
        return super().predict(method, instances)
