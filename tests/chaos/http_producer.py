"""HTTP clients that record their submits in a ledger: `python -m tests.chaos.http_producer CONFIG`.

A request without an answer is repeated, with the same id, as a careful service would do. A job is confirmed by an
answer of 200, 201 or 202. Some confirmed jobs are submitted again in another way, and must be the same job;
other instances under its id must be refused. After SIGTERM the clients wait for the outcomes of their jobs.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import msgspec

from tests.chaos import model
from tests.chaos.jobs import Job, are_predictions_of
from tests.chaos.ledger import Ledger

#: Seconds from the confirmation of a job, or from SIGTERM, until its outcome is due.
DRAIN_SECONDS = 60.0
#: Seconds between two attempts, and of one request.
_PAUSE, _TIMEOUT = 0.1, 15.0
#: The number of clients; each has one request at a time.
_CLIENTS = 12
#: Answers that confirm a job, and those that only ask for another attempt.
_CONFIRMED, _AGAIN = {200, 201, 202}, {502, 503, 504}
#: The shares of jobs that are submitted again, and of those that are answered with other instances.
_REPEATED, _CONTRADICTED = 0.3, 0.1


class HttpProducerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of the clients."""

    url: str
    ledger: str
    #: Jobs per second, and the longest time a job takes, in seconds.
    rate: float
    longest: float
    seed: int
    first: int


class BrokenPromise(Exception):
    """An answer that no client should ever get."""


class Requests:
    """The requests of all clients, repeated until they are answered."""

    def __init__(self, http: httpx.AsyncClient, ledger: Ledger) -> None:
        self._http, self._ledger = http, ledger

    async def submit(self, job: Job, way: str, *, first: bool = True) -> None:
        """Submit a job until it is confirmed."""
        deadline = time.monotonic() + DRAIN_SECONDS
        if first:
            self._ledger.write("submitted", [job.id])
        while True:
            answer = await self._send(job, way, job.rows)
            if answer is not None and answer.status_code in _CONFIRMED:
                check(job, answer.json()["id"] == job.id, f"{way} gave the job {answer.text[:200]}")
                self._ledger.write("confirmed", [job.id])
                return
            check(job, answer is None or answer.status_code in _AGAIN, f"{way}: {describe(answer)}")
            self._ledger.write("raised", [job.id], error="no answer" if answer is None else "refused")
            check(job, time.monotonic() < deadline, f"{way} was never answered")
            await asyncio.sleep(_PAUSE)

    async def contradict(self, job: Job) -> None:
        """Submit other instances under the id of a job; they must be refused."""
        answer = await self._send(job, "put", [[0, model.SLEEP, 0.0]])
        refused = answer is None or answer.status_code in {409, *_AGAIN}
        check(job, refused, f"other instances under its id: {describe(answer)}")

    async def wait(self, job: Job) -> None:
        """Wait for the outcome of a confirmed job, and check it."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while True:
            answer = await self._request("GET", f"/v1/jobs/{job.id}", headers={"Prefer": "wait=5"})
            if answer is not None and answer.status_code not in _AGAIN:
                check(job, answer.status_code == 200, f"its address: {describe(answer)}")
                document = answer.json()
                if document["status"] not in ("waiting", "running"):
                    break
            check(job, time.monotonic() < deadline, "has no outcome")
            await asyncio.sleep(_PAUSE)
        if job.do == model.RAISE:
            check(job, document["status"] == "failure", f"is {document['status']}, should have failed")
        else:
            check(job, document["status"] == "success", f"is {document['status']}: {describe(answer)}")
            check(job, are_predictions_of(job.id, document["predictions"]), "has predictions of another job")

    async def _send(self, job: Job, way: str, rows: list[list[float]]) -> httpx.Response | None:
        body: dict[str, Any] = {"instances": rows}
        match way:
            case "key":
                key = {"Idempotency-Key": job.id}
                return await self._request("POST", f"/v1/models/{job.model}/jobs", body, key)
            case "wait":
                body |= {"model": job.model}
                return await self._request("PUT", f"/v1/jobs/{job.id}", body, {"Prefer": "wait=3"})
            case _:
                body |= {"model": job.model}
                return await self._request("PUT", f"/v1/jobs/{job.id}", body)

    async def _request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> httpx.Response | None:
        """Send one request; None if it has no answer."""
        with contextlib.suppress(httpx.TransportError):
            return await self._http.request(method, path, json=body, headers=headers)
        return None


def check(job: Job, holds: bool, description: str) -> None:
    """Raise BrokenPromise unless the condition holds."""
    if not holds:
        raise BrokenPromise(f"{job.id}: {description}")


def describe(answer: httpx.Response | None) -> str:
    return "no answer" if answer is None else f"{answer.status_code} {answer.text[:300]}"


async def main(config: HttpProducerConfig) -> None:
    """Submit jobs until SIGTERM, then wait for their outcomes. Raises BrokenPromise."""
    stop_requested = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop_requested.set)
    ledger, rng, numbers = (
        Ledger(Path(config.ledger)),
        random.Random(config.seed),
        iter(range(config.first, 2**40)),
    )

    async def run_client(requests: Requests) -> None:
        while not stop_requested.is_set():
            job, ways = random_job(next(numbers), rng, config.longest), rng.sample(["put", "key", "wait"], 2)
            repeated, contradicted = rng.random() < _REPEATED, rng.random() < _CONTRADICTED
            await requests.submit(job, ways[0])
            if contradicted:
                await requests.contradict(job)
            await requests.wait(job)
            if repeated:
                await requests.submit(job, ways[1], first=False)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop_requested.wait(), rng.uniform(0, 2) * _CLIENTS / config.rate)

    async with httpx.AsyncClient(base_url=config.url, timeout=_TIMEOUT) as http, asyncio.TaskGroup() as clients:
        for _ in range(_CLIENTS):
            clients.create_task(run_client(Requests(http, ledger)))
    ledger.close()


def random_job(number: int, rng: random.Random, longest: float) -> Job:
    """Return a random job: most are plain, some have several rows, a few fail."""
    kind = rng.random()
    if kind < 0.03:
        return Job(number=number, do=model.RAISE)
    return Job(number=number, amount=rng.uniform(0, longest), row_count=3 if kind < 0.1 else 1)


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=HttpProducerConfig)))
