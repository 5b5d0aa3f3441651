"""A client that submits a bulk run and waits for it: `python -m tests.chaos.bulk_client URL NAME INPUT OUTPUT`.

Submitting a name again is resuming its run. So the client repeats both steps until the run has ended, as a careful
script would do. It ends with 0 if the run is a success.
"""

from __future__ import annotations

import sys
import time

from headrace import Client, HeadraceError, RunCancelled, RunFailed
from tests.chaos.bulk_model import KEY, MODEL

#: Seconds until the client gives up, and between two attempts.
_TIMEOUT, _PAUSE = 120.0, 0.2


def main(url: str, name: str, table: str, output: str) -> int:
    """Run until the run has ended; return the exit code."""
    deadline = time.monotonic() + _TIMEOUT
    while time.monotonic() < deadline:
        try:
            with Client(url) as client:
                run = client.bulk(MODEL, table, output, name=name, key=KEY)
                run.wait(timeout=deadline - time.monotonic())
                return 0
        except (RunFailed, RunCancelled) as error:
            print(f"{type(error).__name__}: {error}", flush=True)
            return 1
        except HeadraceError as error:
            print(f"{type(error).__name__}: {error}", flush=True)
            time.sleep(_PAUSE)
    return 2


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
