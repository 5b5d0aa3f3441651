"""A producer that writes down what it was promised, a process of its own: `python -m tests.chaos.producer ORDER`.

A submit that raised is repeated under the same ids until it is confirmed, as a careful service would do it: with
Headrace the same id is one job. Told to stop (SIGTERM), it brings what it has begun to an end, for so long as
`PATIENCE`.
"""

from __future__ import annotations

import random
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from headrace import Client, HeadraceError
from tests.chaos.jobs import Job, random_job
from tests.chaos.ledger import Ledger

#: Seconds for which a producer told to stop tries to have confirmed what it asked for.
PATIENCE = 20.0
#: Seconds between two rounds of submits.
_TICK = 0.1


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of a producer process."""

    system: str
    url: str
    ledger: str
    #: Jobs a second, and the longest a job's work takes (seconds).
    rate: float
    longest: float
    #: Whether there are jobs of every kind, or plain ones only.
    mixed: bool
    #: Whether every submit is to be durable.
    durable: bool = False
    seed: int = 1
    first: int = 1


class Link(Protocol):
    """A connection to the system under test. `send` returns when the jobs are confirmed, and raises otherwise."""

    errors: tuple[type[Exception], ...]

    def send(self, jobs: Sequence[Job], *, durable: bool) -> None: ...

    def cancel(self, job: Job) -> bool: ...

    def close(self) -> None: ...


class HeadraceLink:
    """Through the client, contracts checked."""

    errors: tuple[type[Exception], ...] = (HeadraceError,)

    def __init__(self, url: str) -> None:
        self._client = Client(url)

    def send(self, jobs: Sequence[Job], *, durable: bool) -> None:
        more: dict[str, Any] = {"durable": True} if durable else {}
        if len(jobs) > 1:
            ids = [job.id for job in jobs]
            self._client.submit_many(jobs[0].model, [job.rows[0] for job in jobs], ids=ids, **more)
            return
        (job,) = jobs
        for option in ("delay", "expires", "priority"):
            if value := getattr(job, option):
                more[option] = value
        self._client.submit(job.model, instances=job.rows, id=job.id, **more)

    def cancel(self, job: Job) -> bool:
        return self._client.job(job.id).cancel()

    def close(self) -> None:
        self._client.close()


class StockLink:
    """Through Celery's own `send_task`, a message at a time, with the retries it has by default."""

    def __init__(self, url: str) -> None:
        from celery import Celery

        from tests.chaos import stock

        self._stock = stock
        # In a full Redis kombu raises AttributeError too: whatever it is, the submit was not confirmed.
        self.errors: tuple[type[Exception], ...] = (Exception,)
        self._app = Celery("chaos", broker=url, backend=url, set_as_current=False)

    def send(self, jobs: Sequence[Job], *, durable: bool) -> None:
        for job in jobs:
            self._app.send_task(self._stock.TASK, args=[job.rows], task_id=job.id, queue=self._stock.QUEUE)

    def cancel(self, job: Job) -> bool:
        return False

    def close(self) -> None:
        self._app.close()


def link(system: str, url: str) -> Link:
    return HeadraceLink(url) if system == "headrace" else StockLink(url)


class Producer:
    """Submits jobs and keeps the ledger."""

    def __init__(self, to: Link, ledger: Path) -> None:
        self._to, self._ledger = to, Ledger(ledger)

    def submit(self, jobs: Sequence[Job], *, durable: bool = False) -> bool:
        """Submit plain jobs together, or one of any kind; whether it was confirmed."""
        ids = [job.id for job in jobs]
        self._ledger.write("asked", ids, delay=jobs[0].delay, expires=jobs[0].expires, durable=durable)
        try:
            self._to.send(jobs, durable=durable)
        except self._to.errors as error:
            self._ledger.write("raised", ids, error=type(error).__name__)
            return False
        self._ledger.write("confirmed", ids)
        if jobs[0].cancelled:
            try:
                if self._to.cancel(jobs[0]):
                    self._ledger.write("cancelled", ids)
            except self._to.errors as error:
                self._ledger.write("raised", ids, error=type(error).__name__)
        return True

    def close(self) -> None:
        self._to.close()
        self._ledger.close()


def main(order: Order) -> None:
    """Produce until SIGTERM."""
    stop_requested = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop_requested.set())
    producer, chance = Producer(link(order.system, order.url), Path(order.ledger)), random.Random(order.seed)
    number, owed, unconfirmed = order.first, 0.0, list[list[Job]]()
    while not stop_requested.is_set():
        owed += order.rate * _TICK
        jobs = [random_job(number + n, chance, mixed=order.mixed, longest=order.longest) for n in range(int(owed))]
        number, owed = number + len(jobs), owed - len(jobs)
        submits = [[job] for job in jobs if not job.is_plain]
        plain = [job for job in jobs if job.is_plain]
        # Half of the plain ones go one by one, half together; durable ones together, as each submit has to wait.
        single, together = ([], plain) if order.durable else (plain[::2], plain[1::2])
        submits += [[job] for job in single] + ([together] if together else [])
        unconfirmed = _submit(producer, unconfirmed + submits, durable=order.durable)
        stop_requested.wait(_TICK)
    end = time.monotonic() + PATIENCE
    while unconfirmed and time.monotonic() < end:
        time.sleep(_TICK)
        unconfirmed = _submit(producer, unconfirmed, durable=order.durable)
    producer.close()


def _submit(producer: Producer, waiting: list[list[Job]], *, durable: bool) -> list[list[Job]]:
    """Submit all; returns what was not confirmed. After the first that raised, the rest waits for its turn."""
    for index, jobs in enumerate(waiting):
        if not producer.submit(jobs, durable=durable):
            return waiting[index:]
    return []


if __name__ == "__main__":
    main(msgspec.json.decode(sys.argv[1], type=Order))
