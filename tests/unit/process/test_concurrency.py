"""The number of pool processes that nobody chose."""

from __future__ import annotations

import os
import subprocess
import sys


def test_a_worker_has_a_process_for_each_core_that_it_may_use() -> None:
    cores = os.sched_getaffinity(0)
    run = [sys.executable, "-c", "from headrace_worker.app import app; print(app.conf.worker_concurrency)"]
    os.sched_setaffinity(0, {min(cores)})  # the child inherits it
    try:
        assert subprocess.run(run, capture_output=True, text=True, check=True).stdout == "1\n"
    finally:
        os.sched_setaffinity(0, cores)
