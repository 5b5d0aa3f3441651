"""Clients that keep a model busy, each with one job at a time, and record the time of every job."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from headrace import Client

#: Seconds to wait for a prediction, and for a version to answer.
_TIMEOUT = 60.0
#: Number of latest answers that show which versions answer now.
_RECENT = 50


class Answer(NamedTuple):
    """A job that succeeded."""

    #: Time of submission, by `time.monotonic`.
    submitted: float
    seconds: float
    #: The version that predicted.
    version: str


class Load:
    """Clients in threads of this process, while the context lasts; `pause` is in seconds between two jobs."""

    def __init__(self, url: str, model: str, row: list[float], *, clients: int, pause: float) -> None:
        self._url, self._model, self._row, self._pause = url, model, row, pause
        self.answers: list[Answer] = []
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        with Client(self._url) as client:
            while not self._stop.wait(self._pause):
                submitted = time.monotonic()
                try:
                    version = client.predict(self._model, self._row, timeout=_TIMEOUT).version
                except Exception as error:  # noqa: BLE001  # counted in the results
                    self.failures.append(f"{type(error).__name__}: {error}")
                else:
                    self.answers.append(Answer(submitted, time.monotonic() - submitted, version))

    def wait_for_version(self, version: str) -> None:
        """Wait until the version has answered a job. Raises TimeoutError."""
        self._wait(version, lambda versions: version in versions)

    def wait_for_only(self, version: str) -> None:
        """Wait until the version has answered all recent jobs. Raises TimeoutError."""
        self._wait(version, lambda versions: versions == {version})

    def _wait(self, version: str, condition: Callable[[set[str]], bool]) -> None:
        deadline = time.monotonic() + _TIMEOUT
        while not condition({answer.version for answer in self.answers[-_RECENT:]}):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._model}@{version} does not answer; last failure: {self.failures[-1:]}")
            time.sleep(0.005)

    def share_slower(self, start: float, end: float, milliseconds: float) -> float:
        """Return the share of the jobs submitted in a period that took longer than `milliseconds`."""
        durations = self._durations_ms(start, end)
        return sum(duration > milliseconds for duration in durations) / len(durations)

    def latencies(self, start: float, end: float) -> dict[str, Any]:
        """Return count, p50, p99 and maximum, in milliseconds, of the jobs submitted in a period."""
        durations = sorted(self._durations_ms(start, end))
        return {
            "jobs": len(durations),
            "p50": statistics.median(durations),
            "p99": statistics.quantiles(durations, n=100)[98],
            "max": durations[-1],
        }

    def _durations_ms(self, start: float, end: float) -> list[float]:
        return [1000 * answer.seconds for answer in self.answers if start <= answer.submitted < end]
