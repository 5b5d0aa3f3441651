"""A program that listens until SIGTERM, and appends what it handled to a file, a line a job.

usage: python -m tests.support.listening URL FILE SECONDS LEASE

SECONDS is how long handling a job takes, LEASE how long it may take.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from headrace import Client, FinishedJob, on_outcome


def main() -> None:
    """Handle the ended jobs of `orders`."""
    url, file, seconds, lease = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
    with file.open("a", buffering=1) as log:

        @on_outcome("orders", lease=lease)
        def handle(job: FinishedJob) -> None:
            log.write(f"start {job.id}\n")
            time.sleep(seconds)
            log.write(f"end {job.id}\n")

        with Client(url) as client:
            client.run_listeners()


if __name__ == "__main__":
    main()
