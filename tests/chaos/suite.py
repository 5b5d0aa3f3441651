"""All scenarios, by number."""

from tests.chaos import hosts, kills, network, poison, trouble  # noqa: F401  # each adds its own
from tests.chaos.scenario import SCENARIOS

__all__ = ["SCENARIOS"]
