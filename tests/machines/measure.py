"""The measurements of a site: over slow links, with a link half open, and with a machine gone."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import msgspec

from headrace import Client
from tests.chaos.jobs import Job
from tests.chaos.workers import wait_until
from tests.machines.load import Load, find_broken_promises, new_jobs
from tests.machines.site import Host, Site

#: Seconds to wait for outcomes.
_TIMEOUT = 60.0
#: The load during faults: jobs a second, and the seconds that each runs. It keeps more than one worker busy.
_RATE, _JOB_SECONDS = 3.0, 0.4
#: Seconds until nothing is under way on a link that was cut.
_IN_FLIGHT_SECONDS = 0.2
#: Jobs of one submit.
_CHUNK = 1_000


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """The size of a measurement. Times are in seconds."""

    lease: float
    #: The delay of the links of the workers in each direction.
    delay: float
    round_trips: int
    #: The jobs of a measurement of throughput.
    jobs: int
    half_open: float


LONG = Sizes(lease=10.0, delay=0.02, round_trips=100, jobs=20_000, half_open=15.0)
SHORT = Sizes(lease=2.0, delay=0.02, round_trips=5, jobs=200, half_open=3.0)


class LinkFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The idle round trip of a job in milliseconds, and jobs a second, over links of one delay."""

    link_round_trip_ms: float
    round_trip_p50_ms: float
    #: The jobs of the measurement of throughput.
    jobs: int
    jobs_per_second: float


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a site. Times are in seconds."""

    links: list[LinkFigures]
    lease: float
    half_open: float
    #: From the cut to the last outcome of the jobs that the silent worker held, and from the end of the cut to its
    #: next claim.
    half_open_recovery: float
    half_open_next_claim: float
    #: From the loss of the machine to the last outcome of the jobs that it held.
    machine_gone_recovery: float
    confirmed: int
    broken_promises: list[str]


def measure(site: Site, sizes: Sizes) -> Figures:
    """Measure a site of two workers. It has lost a worker's machine then."""
    confirmed: set[str] = set()
    links = []
    for delay in (0.0, sizes.delay):
        for host in site.workers:
            host.proxy.delay(delay)
        trips, rate = _round_trips(site, sizes.round_trips, confirmed), _throughput(site, sizes.jobs, confirmed)
        links.append(
            LinkFigures(
                link_round_trip_ms=2000 * delay,
                round_trip_p50_ms=1000 * statistics.median(trips),
                jobs=sizes.jobs,
                jobs_per_second=rate,
            )
        )
    silent, gone = site.workers
    with Load(site, rate=_RATE, seconds=_JOB_SECONDS) as load:
        cut_at, held = _cut(site, silent, lambda: silent.set_link("down"))
        recovery = site.seconds_until_outcomes(held, cut_at, sizes.lease + _TIMEOUT)
        time.sleep(max(0.0, cut_at + sizes.half_open - time.monotonic()))
        silent.set_link("up")
        up_at = time.monotonic()
        _wait_for_claim(site, silent)
        next_claim = time.monotonic() - up_at
        gone_at, held = _cut(site, gone, gone.lose_power)
        gone_recovery = site.seconds_until_outcomes(held, gone_at, sizes.lease + _TIMEOUT)
    confirmed |= load.confirmed
    site.seconds_until_outcomes(frozenset(confirmed), gone_at, _TIMEOUT)
    broken = find_broken_promises(site, confirmed)
    return Figures(
        links=links,
        lease=sizes.lease,
        half_open=sizes.half_open,
        half_open_recovery=recovery,
        half_open_next_claim=next_claim,
        machine_gone_recovery=gone_recovery,
        confirmed=len(confirmed),
        broken_promises=[*broken, *(f"a submit raised {error!r}" for error in load.errors)],
    )


def _cut(site: Site, host: Host, cut: Callable[[], None]) -> tuple[float, frozenset[str]]:
    """Cut a host off while it holds jobs. Return the moment, and the jobs that it holds for good then."""
    first = _wait_for_claim(site, host)
    cut()
    cut_at = time.monotonic()
    time.sleep(_IN_FLIGHT_SECONDS)
    # The outcome of a job may have been on its way. Then there is nothing to recover, and the time is 0.
    return cut_at, first & site.jobs_held_by(host)


def _wait_for_claim(site: Site, host: Host) -> frozenset[str]:
    """Wait until the worker of a host holds jobs, and return them."""
    jobs: frozenset[str] = wait_until(lambda: site.jobs_held_by(host), _TIMEOUT, "a claim of a worker")
    return jobs


def _round_trips(site: Site, number: int, confirmed: set[str]) -> list[float]:
    """Run jobs one by one, with a pause before each; return the seconds of each."""

    def run(jobs: list[Job]) -> list[float]:
        seconds = []
        with Client(site.client.proxy.url) as client:
            for job in jobs:
                time.sleep(0.02)
                started = time.monotonic()
                client.submit(job.model, instances=job.rows, id=job.id).result(timeout=_TIMEOUT)
                seconds.append(time.monotonic() - started)
        return seconds

    jobs = new_jobs(number)
    confirmed |= {job.id for job in jobs}
    return site.client.machine.call(run, jobs)


def _throughput(site: Site, number: int, confirmed: set[str]) -> float:
    """Run jobs that are submitted together; return the jobs a second from first submit to last outcome."""

    def run(jobs: list[Job]) -> float:
        started = time.monotonic()
        with Client(site.client.proxy.url) as client:
            handles = []
            for first in range(0, len(jobs), _CHUNK):
                chunk = jobs[first : first + _CHUNK]
                rows, ids = [job.rows[0] for job in chunk], [job.id for job in chunk]
                handles += client.submit_many(chunk[0].model, rows, ids=ids)
            for handle in client.as_completed(handles, timeout=_TIMEOUT):
                handle.result()
        return len(jobs) / (time.monotonic() - started)

    jobs = new_jobs(number)
    confirmed |= {job.id for job in jobs}
    return site.client.machine.call(run, jobs)
