"""Jobs that a client on its machine submits one by one, and what becomes of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from itertools import count
from types import TracebackType
from typing import Self

from headrace import Client
from headrace.errors import HeadraceError
from tests.chaos.jobs import Job, are_predictions_of
from tests.chaos.model import SINGLE_MODEL
from tests.chaos.outcome_recorder import RESULT_PREFIX, count_repeated_writes
from tests.machines.site import Site

#: The numbers of all jobs of this process.
_NUMBERS = count(1)


def new_jobs(number: int, seconds: float = 0.0) -> list[Job]:
    """Return so many jobs; each runs for some seconds."""
    return [Job(number=next(_NUMBERS), amount=seconds) for _ in range(number)]


class Load:
    """A client that submits `rate` jobs a second while the block runs; each runs alone, for `seconds`."""

    def __init__(self, site: Site, *, rate: float, seconds: float) -> None:
        self._site, self._pause, self._seconds = site, 1 / rate, seconds
        #: The jobs whose submit returned, and the errors of those whose submit raised.
        self.confirmed: set[str] = set()
        self.errors: list[HeadraceError] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._submit, name="load")

    def _submit(self) -> None:
        with Client(self._site.client.proxy.url) as client:
            while not self._stop.wait(self._pause):
                (job,) = new_jobs(1, self._seconds)
                try:
                    client.submit(SINGLE_MODEL, instances=job.rows, id=job.id)
                except HeadraceError as error:
                    self.errors.append(error)
                else:
                    self.confirmed.add(job.id)

    def __enter__(self) -> Self:
        self._site.client.machine.call(self._thread.start)  # its thread belongs to the client's machine
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()


def find_broken_promises(site: Site, confirmed: Iterable[str]) -> list[str]:
    """Compare the whole set of confirmed jobs with their outcomes; return a description of each difference."""
    return list(_broken_promises(site, set(confirmed)))


def _broken_promises(site: Site, confirmed: set[str]) -> Iterator[str]:
    stored = {
        key.decode().removeprefix(RESULT_PREFIX): json.loads(site.server.get(key) or b"null")
        for key in site.server.scan_iter(match=f"{RESULT_PREFIX}*", count=1000)
    }
    if lost := confirmed - stored.keys():
        yield f"without an outcome: {sorted(lost)}"
    if unknown := stored.keys() - confirmed:
        yield f"an outcome of a job that was not submitted: {sorted(unknown)}"
    for job, outcome in stored.items():
        if outcome["status"] != "SUCCESS":
            yield f"{job} ended as {outcome}"
        elif not are_predictions_of(job, outcome["result"]["predictions"]):
            yield f"{job} has the predictions of another: {outcome}"
    if repeated := count_repeated_writes(site.redis_folder):
        yield f"{repeated} outcomes were written twice"
    if twice := [job for job, times in site.recorder.published.items() if len(times) > 1]:
        yield f"published twice: {sorted(twice)}"
    if letters := site.server.hlen("headrace:dead"):
        yield f"{letters} dead letters"
