"""Headrace and its peers, one after the other and again: jobs a second, round trips, submitting, Redis's CPU."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.environments import NoEnvironment, interpreter, newer_python
from benchmarks.models import TITLES
from benchmarks.roster import Entry
from benchmarks.server import Server
from benchmarks.session import PeerFailed, Session
from benchmarks.sizes import Sizes

#: Pool processes, the same for all.
PROCESSES = 2
#: A run may take this many times what it was calibrated to, and this many seconds more.
_SLACK, _MARGIN = 10, 60


class Comparison:
    """All that was measured of the peers, and why some were not."""

    def __init__(self, server: Server, folder: Path, sizes: Sizes, given: dict[str, str]) -> None:
        self._server, self._folder = server, folder
        self._sizes = sizes
        #: Interpreters to take for environments instead of making these.
        self._given = given
        self.left_out: dict[str, str] = {}
        self._measured: dict[str, list[dict[str, Any]]] = {}
        self._about: dict[str, dict[str, Any]] = {}
        self._counts: dict[tuple[str, str], int] = {}

    def run(self, entries: Sequence[Entry]) -> None:
        """Let every peer have its turns, in turn."""
        pythons = {entry.name: self._python(entry) for entry in entries}
        for number in range(self._sizes.rounds):
            # There and back again: what changes in the machine over time meets all of them alike.
            for entry in entries if number % 2 == 0 else entries[::-1]:
                if entry.name in self.left_out:
                    continue
                print(f"round {number + 1} of {self._sizes.rounds}: {entry.title}", file=sys.stderr)
                self._turn(entry, pythons[entry.name])

    def _python(self, entry: Entry) -> Path | None:
        if entry.environment is None:
            return None
        if entry.environment in self._given:
            return Path(self._given[entry.environment])
        python = None
        if entry.python is not None:
            python = newer_python(entry.python)
            if python is None:
                wanted = ".".join(map(str, entry.python))
                self.left_out[entry.name] = f"needs Python {wanted} or later, and none is on PATH"
                return None
        try:
            return interpreter(entry.environment, python=python)
        except NoEnvironment as reason:
            self.left_out[entry.name] = str(reason)
            return None

    def _turn(self, entry: Entry, python: Path | None) -> None:
        self._server.empty()
        try:
            with Session(entry, python, url=self._server.url, folder=self._folder) as session:
                self._measured.setdefault(entry.name, []).append(self._measure(entry, session))
        except PeerFailed as reason:
            # With all its turns, so that no median is of fewer than the others'.
            self._measured.pop(entry.name, None)
            self.left_out[entry.name] = str(reason)
            print(f"{entry.title} is left out: {reason}", file=sys.stderr)

    def _measure(self, entry: Entry, session: Session) -> dict[str, Any]:
        seconds = self._sizes.seconds
        self._about[entry.name] = session.ask({"do": "about"}, _MARGIN)
        session.start_workers(PROCESSES, next(iter(TITLES)))
        found: dict[str, Any] = {"jobs_per_second": {}, "redis_cpu": {}}
        for model in TITLES:
            count = self._count(entry, session, model)
            before = self._server.cpu()
            took = session.ask({"do": "throughput", "model": model, "count": count}, self._limit)
            found["redis_cpu"][model] = (self._server.cpu() - before) / count * 1e6
            found["jobs_per_second"][model] = count / took["seconds"]
        trips = session.ask(
            {
                "do": "round_trips",
                "model": next(iter(TITLES)),
                "count": self._sizes.round_trips,
                "seconds": seconds * 2,
            },
            self._limit,
        )
        found["round_trips"] = trips["milliseconds"]
        session.stop_workers()
        found["submits"] = session.ask(
            {"do": "submits", "model": next(iter(TITLES)), "seconds": seconds / 2}, self._limit
        )
        return found

    def _count(self, entry: Entry, session: Session, model: str) -> int:
        """Jobs of a run: found in the first turn, the same in the others, after a warm-up."""
        key = (entry.name, model)
        if key not in self._counts:
            order = {"do": "calibrate", "model": model, "seconds": self._sizes.seconds}
            self._counts[key] = session.ask(order, self._limit)["count"]
        else:
            warm = max(64, self._counts[key] // 4)
            session.ask({"do": "throughput", "model": model, "count": warm}, self._limit)
        return self._counts[key]

    @property
    def _limit(self) -> float:
        return self._sizes.seconds * _SLACK + _MARGIN

    def absent(self, entries: Sequence[Entry]) -> list[dict[str, str]]:
        """Who has no numbers, and why."""
        return [
            {"name": entry.name, "title": entry.title, "reason": self.left_out[entry.name]}
            for entry in entries
            if entry.name in self.left_out
        ]

    def results(self, entries: Sequence[Entry]) -> list[dict[str, Any]]:
        """Medians over the turns, a row for each peer; round trips are taken together."""
        rows = []
        for entry in entries:
            turns = self._measured.get(entry.name)
            if not turns:
                continue
            trips = sorted(trip for turn in turns for trip in turn["round_trips"])
            rows.append(
                {
                    "name": entry.name,
                    "title": entry.title,
                    **self._about[entry.name],
                    "turns": len(turns),
                    "jobs": {model: self._counts[entry.name, model] for model in TITLES},
                    "jobs_per_second": _medians([turn["jobs_per_second"] for turn in turns]),
                    "every_jobs_per_second": [turn["jobs_per_second"] for turn in turns],
                    "redis_cpu_us": _medians([turn["redis_cpu"] for turn in turns]),
                    "submits_per_second": _medians([turn["submits"] for turn in turns]),
                    "round_trip_ms": {
                        "p50": percentile(trips, 50),
                        "p99": percentile(trips, 99),
                        "count": len(trips),
                    },
                }
            )
        return rows


def _medians(turns: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(turn[key] for turn in turns) for key in turns[0]}


def percentile(ordered: Sequence[float], percent: float) -> float:
    """A percentile of sorted values: the nearest that was measured."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
