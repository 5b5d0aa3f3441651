"""The client process of a soak: `python -m tests.soak.client CONFIG`. It is never killed.

It submits jobs at a rate, a share of them over HTTP, waits for each outcome and checks it, and records each step
as a line of JSON. It keeps nothing of a job that has ended, so that its memory must stay level. After SIGTERM it
submits nothing more, and ends when it has all outcomes, or after `DRAIN_SECONDS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sys
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec

from headrace import AsyncClient, Cancelled, Expired, Failure, HeadraceError, Success
from tests.chaos import http_producer, model
from tests.chaos.jobs import Job, are_predictions_of, random_job
from tests.soak.verdict import JobRecord

#: Seconds after SIGTERM until the client gives up outcomes that it does not have.
DRAIN_SECONDS = 60.0
#: Seconds between two rounds of submits, and between two attempts of one.
_ROUND_SECONDS, _PAUSE_SECONDS = 0.1, 0.2
#: Seconds of the calibration, and jobs under way in it.
_CALIBRATION_SECONDS, _CALIBRATION_JOBS = 8.0, 64
#: The first numbers of the jobs of a calibration and of those over HTTP.
_FIRST_CALIBRATION_JOB, _FIRST_HTTP_JOB = 9_000_000, 5_000_000
#: The outcomes by their types.
_OUTCOMES = {Success: "success", Failure: "failure", Cancelled: "cancelled", Expired: "expired"}


class ClientConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of the client process."""

    url: str
    gateway: str
    record: str
    #: Jobs per second; 0 for half of what a calibration measures.
    rate: float
    #: The share of jobs over HTTP, and the longest time a job takes, in seconds.
    http_share: float = 0.1
    longest: float = 0.03
    seed: int = 1


class RecordLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the record. `rate` has no job: it is the rate that the client keeps from then on."""

    event: str
    written_at: float
    job: str = ""
    is_http: bool = False
    sent_at: float = 0.0
    delay: float = 0.0
    priority: int = 0
    outcome: str = ""
    rate: float = 0.0


class Recorder:
    """The file of the record. It has the `write` of a ledger too, for the requests of `http_producer`."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def line(self, event: str, job: str = "", **more: Any) -> None:
        """Append a line."""
        line = RecordLine(event=event, job=job, written_at=time.monotonic(), **more)
        self._file.write(msgspec.json.encode(line) + b"\n")

    def write(self, event: str, ids: Sequence[str], **_: Any) -> None:
        """Append a line for each job of a request over HTTP."""
        for job in ids:
            self.line(event, job, is_http=True, sent_at=time.monotonic())


class SoakClient:
    """The submits and waits of the client."""

    def __init__(self, config: ClientConfig, client: AsyncClient, http: httpx.AsyncClient) -> None:
        self._config, self._client = config, client
        self._recorder = Recorder(Path(config.record))
        self._requests = http_producer.Requests(http, self._recorder)  # type: ignore[arg-type]
        self._random = random.Random(config.seed)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Submit until `stop` is set, then wait for the outcomes."""
        rate = self._config.rate or await self._calibrate() / 2
        self._recorder.line("rate", rate=rate)
        queue_number, http_number = 1, _FIRST_HTTP_JOB
        started_at, count = time.monotonic(), 0
        while not stop.is_set():
            while count < (time.monotonic() - started_at) * rate:
                count += 1
                if self._random.random() < self._config.http_share:
                    job = http_producer.random_job(http_number, self._random, self._config.longest)
                    http_number += 1
                    self._start(self._run_http_job(job))
                else:
                    job = random_job(queue_number, self._random, mixed=True, longest=self._config.longest)
                    queue_number += 1
                    self._start(self._run_job(job))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _ROUND_SECONDS)
        if self._tasks:
            _, left = await asyncio.wait(self._tasks, timeout=DRAIN_SECONDS)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _calibrate(self) -> float:
        """Return the jobs per second that end while always the same number is under way."""
        ends, count = time.monotonic() + _CALIBRATION_SECONDS, 0

        async def run_jobs(first: int) -> None:
            nonlocal count
            for number in range(first, first + 100_000):
                if time.monotonic() > ends:
                    return
                amount = self._random.uniform(0, self._config.longest)
                await self._run_job(Job(number=number, amount=amount))
                count += 1

        await asyncio.gather(*(run_jobs(_FIRST_CALIBRATION_JOB + 100_000 * n) for n in range(_CALIBRATION_JOBS)))
        return count / _CALIBRATION_SECONDS

    async def _run_job(self, job: Job) -> None:
        """Submit a job until it is confirmed, wait for its outcome, and check it."""
        self._recorder.line("submitted", job.id, delay=job.delay, priority=job.priority)
        options = {name: value for name in ("delay", "expires", "priority") if (value := getattr(job, name))}
        while True:
            sent_at = time.monotonic()
            try:
                handle = await self._client.submit(job.model, instances=job.rows, id=job.id, **options)
                break
            except HeadraceError:
                await asyncio.sleep(_PAUSE_SECONDS)
        self._recorder.line("confirmed", job.id, sent_at=sent_at, delay=job.delay, priority=job.priority)
        if job.cancelled:
            with contextlib.suppress(HeadraceError):
                await handle.cancel()
        while True:
            try:
                outcome = await handle.outcome(timeout=60)
                break
            except HeadraceError:
                await asyncio.sleep(_PAUSE_SECONDS)
        self._recorder.line("ended", job.id, outcome=_describe(job, outcome))

    async def _run_http_job(self, job: Job) -> None:
        """Do the same over HTTP."""
        try:
            await self._requests.submit(job, "put")
            await self._requests.wait(job)
            outcome = "failure" if job.do == model.RAISE else "success"
        except http_producer.BrokenPromise as error:
            print(error, flush=True)
            outcome = "wrong"
        self._recorder.line("ended", job.id, outcome=outcome, is_http=True)


def _describe(job: Job, outcome: Any) -> str:
    """Return the name of an outcome; `wrong` if this job cannot have it."""
    name = _OUTCOMES[type(outcome)]
    is_right = {
        "success": job.do != model.RAISE,
        "failure": job.do == model.RAISE,
        "cancelled": job.cancelled,
        "expired": bool(job.expires),
    }[name]
    if name == "success" and not are_predictions_of(job.id, list(outcome.prediction.predictions)):
        is_right = False
    return name if is_right else "wrong"


def read_record(path: Path) -> tuple[float, dict[str, JobRecord]]:
    """Return the rate of a record (0 before it is known) and its jobs. An incomplete last line is ignored."""
    rate, jobs = 0.0, dict[str, JobRecord]()
    if not path.exists():
        return rate, jobs
    complete, _, _ = path.read_bytes().rpartition(b"\n")
    decoder = msgspec.json.Decoder(RecordLine)
    for line in map(decoder.decode, complete.splitlines()):
        if line.event == "rate":
            rate = line.rate
        elif line.event == "submitted":
            jobs[line.job] = JobRecord(
                submitted_at=line.written_at, is_http=line.is_http, delay=line.delay, priority=line.priority
            )
        elif line.event == "confirmed":
            jobs[line.job].sent_at = line.sent_at
        elif line.event == "ended":
            jobs[line.job].outcome, jobs[line.job].received_at = line.outcome, line.written_at
    return rate, jobs


async def main(config: ClientConfig) -> None:
    """Run until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with (
        AsyncClient(config.url) as client,
        httpx.AsyncClient(base_url=config.gateway, timeout=15) as http,
    ):
        await SoakClient(config, client, http).run(stop)


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=ClientConfig)))
