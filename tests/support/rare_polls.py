"""Let a worker poll once a minute, to test that it wakes up for a job.

A worker started with `--include tests.support.rare_polls` polls its queues, and ends an idle wait at Redis, only
after longer than any test waits for a job. So a job that ends was brought by a wake-up. The worker needs the
repository in its PYTHONPATH, and a lease longer than the wait: `SETTINGS`.
"""

from __future__ import annotations

from headrace_worker.transport import blocking_claim, notifications, poller, transport

#: The options and settings of such a worker.
OPTIONS = ("--include", "tests.support.rare_polls")
SETTINGS = {"HEADRACE_LEASE": "600"}

_POLL_SECONDS = 60.0

for _module in (blocking_claim, notifications, poller, transport):
    _module.POLL_SECONDS = _POLL_SECONDS  # type: ignore[attr-defined]  # imported there
