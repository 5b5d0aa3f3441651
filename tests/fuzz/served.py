"""A Redis with a model, jobs with outcomes and a dead letter, as targets find it before an input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import redis

from headrace import Client
from headrace.catalog.published import publish_contract
from headrace.wire.keys import Keys
from headrace_worker.store.store import Store
from tests.support.foreign_clients import MODEL, QUEUE, gocelery_message

#: Inputs after which Redis is as it was at first.
_INPUTS = 25


class Served:
    """A Redis, a folder with a model store, and `run_waiting`, which runs the jobs that wait."""

    def __init__(self, url: str, server: redis.Redis, folder: Path, run_waiting: Callable[[], bool]) -> None:
        self.url, self.folder, self.run_waiting = url, folder, run_waiting
        self._server = server
        self._saved: dict[bytes, bytes] = {}
        self._inputs = 0

    def prepare(self) -> None:
        """Prepare Redis for an input. The first call makes the jobs; later ones restore what was then stored."""
        if not self._saved:
            self._make_jobs()
            self._saved = {key: self._server.dump(key) for key in self._server.scan_iter(count=1000)}
        elif self._inputs % _INPUTS == 0:
            self._server.flushdb()
            for key, value in self._saved.items():
                self._server.restore(key, 0, value)
        self._inputs += 1

    def _make_jobs(self) -> None:
        self._server.flushdb()
        store = Store(self.folder / "models")
        publish_contract(self._server, Keys(), store.read_manifest(MODEL, store.latest(MODEL)).contract)
        with Client(self.url) as client:
            client.submit(MODEL, [1, 0, 0], id="job-1")
            client.submit(MODEL, instances=[[1, 0, 0], [2, 0, 0]], id="job-2", metadata={"tenant": "a"})
            self._server.lpush(QUEUE, b"no job", gocelery_message("no number", "job-3"))
            self.run_waiting()
            client.submit(MODEL, [3, 0, 0], id="job-4")
            client.submit(MODEL, [3, 0, 0], id="job-5", delay=600)
