"""A producer process that records its submits in a ledger: `python -m tests.chaos.producer CONFIG`.

A submit that raised is repeated with the same ids until it is confirmed, as a careful service would do: for
Headrace the same id is the same job. After SIGTERM it repeats unconfirmed submits for up to `DRAIN_SECONDS`.
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

#: Seconds for which a producer that stops repeats its unconfirmed submits.
DRAIN_SECONDS = 20.0
#: Seconds between two rounds of submits.
_ROUND_SECONDS = 0.1


class ProducerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of a producer process."""

    system: str
    url: str
    ledger: str
    #: Jobs per second, and the longest time a job takes, in seconds.
    rate: float
    longest: float
    #: True for jobs of every kind, False for plain jobs only.
    mixed: bool
    #: True for durable submits.
    durable: bool = False
    #: The endpoint that is notified of each outcome; empty for none.
    notify: str = ""
    #: The name of the listeners of each job; empty for none.
    listen: str = ""
    seed: int = 1
    first: int = 1


class Connection(Protocol):
    """A connection to the system under test. `send` returns when the jobs are confirmed, and raises otherwise."""

    errors: tuple[type[Exception], ...]

    def send(self, jobs: Sequence[Job], *, durable: bool) -> None: ...

    def cancel(self, job: Job) -> bool: ...

    def close(self) -> None: ...


class HeadraceConnection:
    """A connection by the client, with its checks of contracts."""

    errors: tuple[type[Exception], ...] = (HeadraceError,)

    def __init__(self, url: str, *, notify: str = "", listen: str = "") -> None:
        self._client = Client(url)
        #: Options of every submit.
        self._options = {name: value for name, value in (("notify", notify), ("listen", listen)) if value}

    def send(self, jobs: Sequence[Job], *, durable: bool) -> None:
        options: dict[str, Any] = {**self._options, **({"durable": True} if durable else {})}
        if len(jobs) > 1:
            ids = [job.id for job in jobs]
            self._client.submit_many(jobs[0].model, [job.rows[0] for job in jobs], ids=ids, **options)
            return
        (job,) = jobs
        for option in ("delay", "expires", "priority"):
            if value := getattr(job, option):
                options[option] = value
        self._client.submit(job.model, instances=job.rows, id=job.id, **options)

    def cancel(self, job: Job) -> bool:
        return self._client.job(job.id).cancel()

    def close(self) -> None:
        self._client.close()


class StockConnection:
    """A connection by Celery's `send_task`, one message at a time, with its default retries."""

    def __init__(self, url: str) -> None:
        from celery import Celery

        from tests.chaos import stock

        self._stock = stock
        # With a full Redis kombu raises AttributeError too. After any error the submit is not confirmed.
        self.errors: tuple[type[Exception], ...] = (Exception,)
        self._app = Celery("chaos", broker=url, backend=url, set_as_current=False)

    def send(self, jobs: Sequence[Job], *, durable: bool) -> None:
        for job in jobs:
            self._app.send_task(self._stock.TASK, args=[job.rows], task_id=job.id, queue=self._stock.QUEUE)

    def cancel(self, job: Job) -> bool:
        return False

    def close(self) -> None:
        self._app.close()


def open_connection(system: str, url: str, *, notify: str = "", listen: str = "") -> Connection:
    return HeadraceConnection(url, notify=notify, listen=listen) if system == "headrace" else StockConnection(url)


class Producer:
    """A producer with a ledger."""

    def __init__(self, connection: Connection, ledger: Path) -> None:
        self._connection, self._ledger = connection, Ledger(ledger)

    def submit(self, jobs: Sequence[Job], *, durable: bool = False) -> bool:
        """Submit plain jobs together, or a single job of any kind. Return True if they were confirmed."""
        ids = [job.id for job in jobs]
        self._ledger.write("submitted", ids, delay=jobs[0].delay, expires=jobs[0].expires, durable=durable)
        try:
            self._connection.send(jobs, durable=durable)
        except self._connection.errors as error:
            self._ledger.write("raised", ids, error=type(error).__name__)
            return False
        self._ledger.write("confirmed", ids)
        if jobs[0].cancelled:
            try:
                if self._connection.cancel(jobs[0]):
                    self._ledger.write("cancelled", ids)
            except self._connection.errors as error:
                self._ledger.write("raised", ids, error=type(error).__name__)
        return True

    def close(self) -> None:
        self._connection.close()
        self._ledger.close()


def main(config: ProducerConfig) -> None:
    """Submit jobs until SIGTERM."""
    stop_requested = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop_requested.set())
    connection = open_connection(config.system, config.url, notify=config.notify, listen=config.listen)
    producer = Producer(connection, Path(config.ledger))
    rng = random.Random(config.seed)
    number, due, unconfirmed = config.first, 0.0, list[list[Job]]()
    while not stop_requested.is_set():
        due += config.rate * _ROUND_SECONDS
        jobs = [random_job(number + n, rng, mixed=config.mixed, longest=config.longest) for n in range(int(due))]
        number, due = number + len(jobs), due - len(jobs)
        submits = [[job] for job in jobs if not job.is_plain]
        plain = [job for job in jobs if job.is_plain]
        # Half of the plain jobs are submitted singly, half together. Durable submits are slow, so all go together.
        single, together = ([], plain) if config.durable else (plain[::2], plain[1::2])
        submits += [[job] for job in single] + ([together] if together else [])
        unconfirmed = _submit(producer, unconfirmed + submits, durable=config.durable)
        stop_requested.wait(_ROUND_SECONDS)
    end = time.monotonic() + DRAIN_SECONDS
    while unconfirmed and time.monotonic() < end:
        time.sleep(_ROUND_SECONDS)
        unconfirmed = _submit(producer, unconfirmed, durable=config.durable)
    producer.close()


def _submit(producer: Producer, submits: list[list[Job]], *, durable: bool) -> list[list[Job]]:
    """Submit until one raises. Return the unconfirmed submits."""
    for index, jobs in enumerate(submits):
        if not producer.submit(jobs, durable=durable):
            return submits[index:]
    return []


if __name__ == "__main__":
    main(msgspec.json.decode(sys.argv[1], type=ProducerConfig))
