"""The model of the incident drill: its second version fails on what the example does not have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Churn:
    """Answers 0.25 to all."""

    def load(self, data: bytes) -> None:
        """There is nothing to load."""

    def predict(self, method: str, instances: Sequence[Any]) -> list[float]:
        """The same for each."""
        return [0.25 for _ in instances]


class Hasty(Churn):
    """Knows no customer from before the relaunch."""

    def predict(self, method: str, instances: Sequence[Any]) -> list[float]:
        """The same for each, of those it knows."""
        for instance in instances:
            if instance["age"] > 90:
                raise KeyError("segment")
        return super().predict(method, instances)
