"""Headrace and its peers, measured in turns: throughput, round trips, submission, CPU of Redis."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.environments import EnvironmentFailed, find_python, interpreter
from benchmarks.models import TITLES
from benchmarks.peer_session import PeerFailed, PeerSession
from benchmarks.peers.registry import PeerEntry
from benchmarks.redis_server import RedisServer
from benchmarks.sizes import Sizes

#: Pool processes of every peer.
PROCESSES = 2
#: A run may take this many times its calibrated duration, and this many seconds more.
_TIMEOUT_FACTOR, _TIMEOUT_MARGIN = 10, 60


class Comparison:
    """The measurements of all peers, and the reasons for those that are left out."""

    def __init__(
        self,
        server: RedisServer,
        folder: Path,
        sizes: Sizes,
        interpreters: dict[str, str],
        models: Iterable[str] = TITLES,
    ) -> None:
        self._server, self._folder = server, folder
        #: The names of the models in the folder. Round trips and submissions are those of the first.
        self._models = list(models)
        self._sizes = sizes
        #: Interpreters to use, by name of the environment, instead of creating the environment.
        self._interpreters = interpreters
        self.left_out: dict[str, str] = {}
        self._measured: dict[str, list[dict[str, Any]]] = {}
        self._about: dict[str, dict[str, Any]] = {}
        self._counts: dict[tuple[str, str], int] = {}

    def run(self, entries: Sequence[PeerEntry]) -> None:
        """Measure every peer once a round."""
        pythons = {entry.name: self._python(entry) for entry in entries}
        for number in range(self._sizes.rounds):
            # Every second round goes backwards, so that drift of the machine affects all peers alike.
            for entry in entries if number % 2 == 0 else entries[::-1]:
                if entry.name in self.left_out:
                    continue
                print(f"round {number + 1} of {self._sizes.rounds}: {entry.title}", file=sys.stderr)
                self._turn(entry, pythons[entry.name])

    def _python(self, entry: PeerEntry) -> Path | None:
        if entry.environment is None:
            return None
        if entry.environment in self._interpreters:
            return Path(self._interpreters[entry.environment])
        python = None
        if entry.python is not None:
            python = find_python(entry.python)
            required = ".".join(map(str, entry.python))
            if python is None:
                self.left_out[entry.name] = (
                    f"needs Python {required} or later; none is on PATH, or one of pyenv or uv"
                )
                return None
            print(f"{entry.title} needs Python {required} or later: found {python}", file=sys.stderr)
        try:
            return interpreter(entry.environment, python=python)
        except EnvironmentFailed as reason:
            self.left_out[entry.name] = str(reason)
            return None

    def _turn(self, entry: PeerEntry, python: Path | None) -> None:
        self._server.reset()
        try:
            with PeerSession(entry, python, url=self._server.url, folder=self._folder) as session:
                self._measured.setdefault(entry.name, []).append(self._measure(entry, session))
        except PeerFailed as reason:
            # Its earlier turns go too: all medians are over the same number of turns.
            self._measured.pop(entry.name, None)
            self.left_out[entry.name] = str(reason)
            print(f"{entry.title} is left out: {reason}", file=sys.stderr)

    def _measure(self, entry: PeerEntry, session: PeerSession) -> dict[str, Any]:
        seconds, first_model = self._sizes.seconds, self._models[0]
        self._about[entry.name] = session.execute("about", _TIMEOUT_MARGIN)
        session.start_workers(PROCESSES, first_model)
        turn: dict[str, Any] = {"jobs_per_second": {}, "redis_cpu": {}}
        for model in self._models:
            count = self._job_count(entry, session, model)
            cpu_before = self._server.cpu_seconds()
            run = session.execute("throughput", self._timeout, model=model, count=count)
            turn["redis_cpu"][model] = (self._server.cpu_seconds() - cpu_before) / count * 1e6
            turn["jobs_per_second"][model] = count / run["seconds"]
        trips = session.execute(
            "round_trips", self._timeout, model=first_model, count=self._sizes.round_trips, seconds=seconds * 2
        )
        turn["round_trips"] = trips["milliseconds"]
        session.stop_workers()
        turn["submissions"] = session.execute("submissions", self._timeout, model=first_model, seconds=seconds / 2)
        return turn

    def _job_count(self, entry: PeerEntry, session: PeerSession, model: str) -> int:
        """Return the jobs of a run: calibrated in the first turn, reused after a warm-up in the others."""
        key = (entry.name, model)
        if key not in self._counts:
            answer = session.execute("calibrate", self._timeout, model=model, seconds=self._sizes.seconds)
            self._counts[key] = answer["count"]
        else:
            warm_up = max(64, self._counts[key] // 4)
            session.execute("throughput", self._timeout, model=model, count=warm_up)
        return self._counts[key]

    @property
    def _timeout(self) -> float:
        return self._sizes.seconds * _TIMEOUT_FACTOR + _TIMEOUT_MARGIN

    def reasons(self, entries: Sequence[PeerEntry]) -> list[dict[str, str]]:
        """Return the peers that are left out, each with its reason."""
        return [
            {"name": entry.name, "title": entry.title, "reason": self.left_out[entry.name]}
            for entry in entries
            if entry.name in self.left_out
        ]

    def results(self, entries: Sequence[PeerEntry]) -> list[dict[str, Any]]:
        """Return a row for each peer, with medians over its turns; round trips of all turns count together."""
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
                    "jobs": {model: self._counts[entry.name, model] for model in self._models},
                    "jobs_per_second": _medians([turn["jobs_per_second"] for turn in turns]),
                    "every_jobs_per_second": [turn["jobs_per_second"] for turn in turns],
                    "redis_cpu_us": _medians([turn["redis_cpu"] for turn in turns]),
                    "submits_per_second": _medians([turn["submissions"] for turn in turns]),
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
    """Return a percentile of sorted values: the nearest measured value."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
