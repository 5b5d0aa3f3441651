"""Models of the Python runtime for tests/acceptance/test_model_life.py: each predicts ten times its version."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any


class Plain:
    """A model without faults."""

    def load(self, data: bytes) -> None:
        """Read the prediction from the data."""
        self.prediction = float(data)

    def predict(self, method: str, instances: Sequence[Any]) -> list[Any]:
        """Return the same number for each instance."""
        return [self.prediction for _ in instances]


class Wide(Plain):
    """A model that returns lists, which breaks producers."""

    def predict(self, method: str, instances: Sequence[Any]) -> list[Any]:
        """Return two numbers for each instance."""
        return [[self.prediction, self.prediction] for _ in instances]


class Flaky(Plain):
    """A model that fails for half of the batches outside of its example."""

    def predict(self, method: str, instances: Sequence[Any]) -> list[Any]:
        """Return the same number for each instance, or raise ConnectionError."""
        if any(instance[0] < 0 for instance in instances) and random.random() < 0.5:
            raise ConnectionError("the feature store does not answer")
        return super().predict(method, instances)
