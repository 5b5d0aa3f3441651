"""Models for drills with the chart: one takes its time for each instance, and one to load.

headrace models add drill:Slow --name slow --example example.json
"""

import os
import time

#: Seconds of an instance of `Slow`.
SECONDS = 0.1


class Slow:
    """A model that returns its instances, each after some time."""

    def load(self, data: bytes) -> None:
        """Load nothing."""

    def predict(self, method: str, instances: list) -> list:
        time.sleep(SECONDS * len(instances))
        return [instance["number"] for instance in instances]


class Heavy(Slow):
    """A model that takes as long to load as LOAD_SECONDS says."""

    def load(self, data: bytes) -> None:
        time.sleep(float(os.environ.get("LOAD_SECONDS", "0")))
