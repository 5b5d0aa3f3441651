"""No confirmed job is lost, and each has one outcome: over slow and half-open links, and with a machine gone."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from tests.machines.machine import Machine, NamespacesNotPermitted, link
from tests.machines.measure import LONG, SHORT, Figures, Sizes, measure
from tests.machines.site import Site

#: Seconds beyond its lease within which a lost worker's jobs have their outcomes, the run of a job included.
_MARGIN_SECONDS = 10.0


def measure_site(folder: Path, sizes: Sizes) -> Figures:
    try:
        with Site(folder, workers=2, lease=sizes.lease) as site:
            return measure(site, sizes)
    except NamespacesNotPermitted as reason:
        pytest.skip(str(reason))


def test_no_job_is_lost_over_slow_links_half_open_links_and_with_a_machine_gone(tmp_path: Path):
    figures = measure_site(tmp_path, SHORT)
    assert not figures.broken_promises
    assert figures.confirmed > 2 * (SHORT.round_trips + SHORT.jobs)
    assert figures.half_open_recovery < SHORT.lease + _MARGIN_SECONDS
    assert figures.machine_gone_recovery < SHORT.lease + _MARGIN_SECONDS
    # A job crosses the link of its worker and its outcome too.
    assert figures.links[1].round_trip_p50_ms > figures.links[1].link_round_trip_ms == 40


@pytest.mark.long
@pytest.mark.timeout(300)
def test_no_job_is_lost_while_a_link_is_half_open_for_15_seconds(tmp_path: Path):
    figures = measure_site(tmp_path, LONG)
    assert not figures.broken_promises
    assert figures.half_open == 15
    assert figures.half_open_recovery < LONG.lease + _MARGIN_SECONDS
    assert figures.machine_gone_recovery < LONG.lease + _MARGIN_SECONDS


def test_a_machine_reaches_another_only_over_their_link_and_leaves_no_interface_behind():
    def interfaces() -> str:
        return subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout

    before = interfaces()
    try:
        with Machine("first") as first, Machine("second") as second:
            address, _ = link(first, second, 1)
            server = first.call(socket.create_server, (address, 0))
            with server:
                second.call(socket.create_connection, server.getsockname(), timeout=5).close()
                with pytest.raises(OSError):  # noqa: PT011  # the network of this machine decides which
                    socket.create_connection(server.getsockname(), timeout=0.2)
            assert interfaces() == before
    except NamespacesNotPermitted as reason:
        pytest.skip(str(reason))
    assert interfaces() == before
