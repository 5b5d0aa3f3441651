"""Models of the Python runtime for the story of a model's life. Each answers ten times its version."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any


class Plain:
    """As good as any."""

    def load(self, data: bytes) -> None:
        """What it answers."""
        self.answer = float(data)

    def predict(self, method: str, instances: Sequence[Any]) -> list[Any]:
        """The same for each."""
        return [self.answer for _ in instances]


class Wide(Plain):
    """Answers in another form."""

    def predict(self, method: str, instances: Sequence[Any]) -> list[Any]:
        """Two numbers for each."""
        return [[self.answer, self.answer] for _ in instances]


class Flaky(Plain):
    """Right for its example; for anything else its source of features is away every other time."""

    def predict(self, method: str, instances: Sequence[Any]) -> list[Any]:
        """The same for each, in the end."""
        if any(instance[0] < 0 for instance in instances) and random.random() < 0.5:
            raise ConnectionError("the features are away")
        return super().predict(method, instances)
