"""Let a worker poll once a minute, to test that it wakes up for a job.

A worker started with these options polls its queues, and ends an idle wait at Redis, only after longer than any
test waits for a job. So a job that ends was brought by a wake-up. The worker needs the repository in its
PYTHONPATH, and a lease longer than the wait. Only the worker imports the change: in the process of the tests it
would last.
"""

from __future__ import annotations

#: The options and settings of such a worker.
OPTIONS = ("--include", "tests.support.rare_polls_in_worker")
SETTINGS = {"HEADRACE_LEASE": "600"}
