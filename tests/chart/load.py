"""Jobs that are submitted to the played cluster from outside, and the audit of their outcomes."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from headrace import Client, HeadraceError
from tests.chaos.outcome_recorder import RESULT_PREFIX, count_repeated_writes
from tests.chart.release import RedisServer

#: Seconds between two submits of a load.
_PAUSE = 0.1


class Load:
    """Submits jobs from a thread until it is closed. A submit that fails is repeated with its id."""

    def __init__(self, server: RedisServer, model: str, prefix: str) -> None:
        self.confirmed: set[str] = set()
        self._client = Client(server.url("producer"))
        self._model, self._prefix = model, prefix
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def burst(self, count: int) -> None:
        """Submit many jobs at once."""
        numbers = range(len(self.confirmed), len(self.confirmed) + count)
        ids, instances = (
            [f"{self._prefix}-{number}" for number in numbers],
            [{"number": number} for number in numbers],
        )
        self.confirmed |= {job.id for job in self._client.submit_many(self._model, instances, ids=ids)}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        number = 0
        while not self._stopped.wait(_PAUSE):
            job = f"{self._prefix}-{number}"
            try:
                self._client.submit(self._model, {"number": float(number)}, id=job)
            except HeadraceError:
                continue  # Redis is away
            self.confirmed.add(job)
            number += 1


def read_outcomes(server: RedisServer, prefix: str) -> dict[str, str]:
    """Return the state of each job whose id begins with a prefix and that has ended."""
    with server.client() as client:
        keys = list(client.scan_iter(match=f"{RESULT_PREFIX}{prefix}-*", count=1000))
        values = client.mget(keys) if keys else []
    states = {}
    for key, value in zip(keys, values, strict=True):
        if b'"status":"STARTED"' in value:
            continue
        states[key.decode().removeprefix(RESULT_PREFIX)] = (
            "success" if b'"SUCCESS"' in value else repr(value[:200])
        )
    return states


def check_outcomes(server: RedisServer, load: Load, prefix: str, folder: Path, seconds: float = 60) -> None:
    """Check that exactly the confirmed jobs have an outcome, success, and that none has had two."""
    deadline = time.monotonic() + seconds
    while load.confirmed - read_outcomes(server, prefix).keys() and time.monotonic() < deadline:
        time.sleep(0.2)
    outcomes = read_outcomes(server, prefix)
    faults = {
        "lost": load.confirmed - outcomes.keys(),
        "never confirmed": outcomes.keys() - load.confirmed,
        "failed": {job: state for job, state in outcomes.items() if state != "success"},
    }
    assert not any(faults.values()), faults
    server.copy_data(folder)
    assert (repeated := count_repeated_writes(folder)) == 0, f"{repeated} outcomes were written twice"
