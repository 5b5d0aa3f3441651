"""What executes a version of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from headrace.envelope import Instance


class Runtime(Protocol):
    """Executes one version. One runtime serves one process; nothing calls it from two threads at once."""

    def predict(self, method: str, instances: Sequence[Instance]) -> list[Any]:
        """One JSON-able prediction for each of a batch of instances that fit the contract, in their order."""
        ...
