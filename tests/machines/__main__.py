"""`python -m tests.machines`: measure a site of several machines (root only), print the figures.

The exit code is 1 if a promise was broken, and 2 where there are no network namespaces.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.machines.machine import NamespacesNotPermitted
from tests.machines.measure import LONG, Figures, measure
from tests.machines.site import Site


def main() -> int:
    """Run the command; return its exit code."""
    try:
        with (
            tempfile.TemporaryDirectory(prefix="headrace-machines-") as folder,
            Site(Path(folder), workers=2, lease=LONG.lease) as site,
        ):
            figures = measure(site, LONG)
    except NamespacesNotPermitted as reason:
        print(reason, file=sys.stderr)
        return 2
    print(as_text(figures))
    return 1 if figures.broken_promises else 0


def as_text(figures: Figures) -> str:
    """Format the figures as lines of text."""
    lines = [
        f"workers at {link.link_round_trip_ms:.0f} ms: idle round trip p50 {link.round_trip_p50_ms:.1f} ms, "
        f"{link.jobs_per_second:,.0f} jobs/s of {link.jobs:,}"
        for link in figures.links
    ]
    recovery, next_claim = figures.half_open_recovery, figures.half_open_next_claim
    lines += [
        f"a worker's link half open for {figures.half_open:g} s, lease {figures.lease:g} s:",
        f"    its jobs had their outcomes after {recovery:.1f} s",
        f"    it claimed again {next_claim:.1f} s after the link was back",
        f"a worker's machine gone: its jobs had their outcomes after {figures.machine_gone_recovery:.1f} s",
        f"{figures.confirmed:,} jobs confirmed; broken promises: {len(figures.broken_promises)}",
    ]
    return "\n".join([*lines, *figures.broken_promises])


if __name__ == "__main__":
    sys.exit(main())
