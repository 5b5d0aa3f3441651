"""A run over a table of a thousand million rows: submitted, planned, and cancelled."""

from __future__ import annotations

import sys
import time
from typing import Any

from benchmarks.bulk import tables
from benchmarks.bulk.memory import run_command
from benchmarks.bulk.site import RunFailed, Site
from benchmarks.bulk.sizes import Sizes
from headrace import Client

_MODEL = "logistic"
_TIMEOUT = 600.0


def measure_submission(site: Site, sizes: Sizes) -> dict[str, Any]:
    """Return the seconds of the submission, by a call and by the command, and until the run is planned.

    The table is one file with many links. The plan job reads the footer of each; rows are not read before that.
    """
    print("a run over a listed table", file=sys.stderr)
    single = tables.write_parquet(
        site.inputs / "listed-file", "numbers", sizes.listed_rows, files=1, group_rows=sizes.group_rows
    )
    folder = tables.link_repeatedly(single, site.inputs / "listed", sizes.listed_files)
    # A worker publishes the contract of the model, without which nothing is submitted.
    with site.worker(1):
        pass
    started = time.perf_counter()
    run_command(
        site, ["submit", _MODEL, f"in:{folder.name}", "-o", "out:listed-command", "--name", "listed-command"]
    )
    command_seconds = time.perf_counter() - started
    with Client(site.server.url) as client:
        client.bulk(_MODEL, f"in:{folder.name}", "out:listed-command", name="listed-command").cancel()
        before = site.server.memory_bytes()
        started = time.perf_counter()
        run = client.bulk(_MODEL, f"in:{folder.name}", "out:listed", name="listed")
        seconds = time.perf_counter() - started
        with site.worker(2):
            planned = time.monotonic()
            while (progress := run.status()).chunks is None:
                if progress.state in {"failure", "cancelled"} or time.monotonic() > planned + _TIMEOUT:
                    raise RunFailed(f"the plan ended as {progress.state}: {progress.error}")
                time.sleep(0.05)
            plan_seconds = time.monotonic() - planned
            bytes_of_chunks = site.server.memory_bytes() - before
            run.cancel()
    return {
        "rows": sizes.listed_files * sizes.listed_rows,
        "files": sizes.listed_files,
        "chunks": progress.chunks,
        "planned_rows": progress.rows,
        "call_seconds": seconds,
        "command_seconds": command_seconds,
        "plan_seconds": plan_seconds,
        "redis_bytes": bytes_of_chunks,
    }
