"""A soak: run the processes for a time, kill one of them each period, and judge what was observed."""

from __future__ import annotations

import os
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.machine import commit, machine
from headrace_worker.local.stack import raise_if_interrupted
from tests.chaos.installed_servers import redis_version
from tests.chaos.outcome_recorder import count_repeated_writes
from tests.soak.client import read_record
from tests.soak.kills import Kill, plan_kills
from tests.soak.site import KEPT_SECONDS, LEASE_SECONDS, Site
from tests.soak.verdict import SoakEvidence, SoakResult, judge

#: Seconds between two looks at what is to be done.
_LOOK_SECONDS = 0.5


class SoakConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of a soak. `rate` is jobs per second; 0 for half of what a calibration measures."""

    minutes: float = 120.0
    rate: float = 0.0
    seed: int = 1
    #: Seconds between two kills, and between two samples.
    kill_every: float = 60.0
    sample_every: float = 10.0
    #: Seconds of a process's life that no slope counts.
    warm_up: float = 180.0


class SoakReport(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a soak, with the conditions of its run."""

    date: str
    commit: str
    machine: dict[str, Any]
    redis: str
    celery: str
    config: SoakConfig
    #: The rate that was used, and whether a calibration chose it.
    rate: float
    is_calibrated: bool
    minutes: float
    is_interrupted: bool
    kills: list[Kill]
    #: Seconds for which Redis was away.
    outages: list[float]
    #: Keys in Redis after its warm-up: the fewest, the most and the last.
    keys: list[int]
    result: SoakResult

    @property
    def problems(self) -> list[str]:
        """All broken promises."""
        return [*self.result.broken_promises, *self.result.missed_deadlines]


def run_soak(config: SoakConfig, samples_file: Path | None = None) -> SoakReport:
    """Run a soak. Ctrl-C, if it raises KeyboardInterrupt, ends it early with a report of what was observed."""
    host, checkout, is_interrupted = machine(os.getloadavg()[0]), commit(), False
    with (
        tempfile.TemporaryDirectory(prefix="headrace-soak-") as folder,
        Site(Path(folder), rate=config.rate, seed=config.seed) as site,
    ):
        site.start()
        started_at = time.monotonic()
        try:
            _run(site, config, started_at)
        except KeyboardInterrupt:
            is_interrupted = True
        minutes = (time.monotonic() - started_at) / 60
        try:
            site.stop_client()
        except TimeoutError as error:
            site.unexpected_ends.append(f"client: {error}")
        site.stop_workers()
        rate, jobs = read_record(site.record)
        evidence = SoakEvidence(
            jobs=jobs,
            published=site.recorder.published,
            repeated_writes=count_repeated_writes(site.redis_folder),
            samples=site.samples,
            warm_up={"": config.warm_up, "Redis": config.warm_up + KEPT_SECONDS},
            outages=site.outages,
            lease=LEASE_SECONDS,
            unexpected_ends=site.unexpected_ends,
        )
        if samples_file:
            samples_file.write_bytes(msgspec.json.encode({"samples": site.samples, "keys": site.keys}))
    level = [count for moment, count in site.keys if moment > started_at + KEPT_SECONDS + config.warm_up]
    level = level or [count for _, count in site.keys]
    return SoakReport(
        date=date.today().isoformat(),
        commit=checkout,
        machine=host,
        redis=redis_version(),
        celery=version("celery"),
        config=config,
        rate=rate,
        is_calibrated=config.rate == 0,
        minutes=minutes,
        is_interrupted=is_interrupted,
        kills=site.kills,
        outages=[answered_at - killed_at for killed_at, answered_at in site.outages],
        keys=[min(level), max(level), level[-1]] if level else [],
        result=judge(evidence),
    )


def _run(site: Site, config: SoakConfig, started_at: float) -> None:
    """Sample and kill until the time is over."""
    seconds = config.minutes * 60
    kills, next_sample = plan_kills(config.seed, seconds, config.kill_every), 0.0
    while (second := time.monotonic() - started_at) < seconds:
        raise_if_interrupted()
        site.restart_ended()
        if second >= next_sample:
            site.take_samples()
            next_sample = second + config.sample_every
        if kills and second >= kills[0].second:
            planned = kills.pop(0)
            site.kill(planned, second)
            done = site.kills[-1]
            print(f"{second:6.0f} s: {done.victim} killed, ready again after {done.ready_after:.1f} s", flush=True)
        time.sleep(_LOOK_SECONDS)
