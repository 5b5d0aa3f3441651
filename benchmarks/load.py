"""Clients that ask a model, each one job at a time, while a context lasts; and how long each job took."""

from __future__ import annotations

import statistics
import threading
import time
from typing import Any

from headrace import Client

#: Seconds a client waits for an answer, and a measurement for a version.
_PATIENCE = 60.0
#: Answers that are looked at to tell which versions answer now.
_LAST = 50


class Load:
    """Clients in threads of this process."""

    def __init__(self, url: str, model: str, row: list[float], *, clients: int, pause: float) -> None:
        self._url, self._model, self._row, self._pause = url, model, row, pause
        #: When each job was sent, seconds it took, and the version that answered.
        self.answers: list[tuple[float, float, str]] = []
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
                began = time.monotonic()
                try:
                    version = client.predict(self._model, self._row, timeout=_PATIENCE).version
                except Exception as error:  # noqa: BLE001  # reported
                    self.failures.append(f"{type(error).__name__}: {error}")
                else:
                    self.answers.append((began, time.monotonic() - began, version))

    def await_version(self, version: str) -> None:
        """Wait until a job ran on the version. Raises TimeoutError."""
        self._await(version, lambda ran: version in ran)

    def await_only(self, version: str) -> None:
        """Wait until the last jobs all ran on it. Raises TimeoutError."""
        self._await(version, lambda ran: ran == {version})

    def _await(self, version: str, holds: Any) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not holds({ran for _, _, ran in self.answers[-_LAST:]}):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._model}@{version} does not answer; {self.failures[-1:]}")
            time.sleep(0.005)

    def slower(self, start: float, end: float, milliseconds: float) -> float:
        """The part of the jobs sent in a time that took longer than that."""
        took = [1000 * seconds for began, seconds, _ in self.answers if start <= began < end]
        return sum(one > milliseconds for one in took) / len(took)

    def latencies(self, start: float, end: float) -> dict[str, Any]:
        """Milliseconds of the jobs sent in a time: median, 99th percentile and longest."""
        took = sorted(1000 * seconds for began, seconds, _ in self.answers if start <= began < end)
        return {
            "jobs": len(took),
            "p50": statistics.median(took),
            "p99": statistics.quantiles(took, n=100)[98],
            "max": took[-1],
        }
