"""A model that takes seconds to load: `SECONDS` is the variable with their number."""

from __future__ import annotations

import os
import time
from typing import Any

from tests.support.claim_models import Doubling

SECONDS = "SLOW_MODEL_SECONDS"


class SlowToLoad(Doubling):
    """`Doubling`, read from a file on a slow disk."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        time.sleep(float(os.environ.get(SECONDS, "0")))
        super().__setstate__(state)
