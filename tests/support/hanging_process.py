"""A remote-control command that blocks the event loop: `celery worker --include tests.support.hanging_process`."""

from __future__ import annotations

import time
from typing import Any

from celery.worker.control import control_command

from headrace_worker.telemetry import health

#: Shortened for tests.
health.HUNG_SECONDS = 5.0


@control_command(args=[("seconds", float)])
def hang(state: Any, seconds: float) -> None:
    """Block the event loop for this time."""
    time.sleep(seconds)
