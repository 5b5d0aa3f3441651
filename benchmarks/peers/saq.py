"""The peer saq."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from saq import Queue

from benchmarks.peers.base import RESULT_TIMEOUT, URL, AsyncPeer, Row, poll_interval, predict_row

queue = Queue.from_url(URL)


async def predict(_: dict[str, Any], *, model: str, row: Row) -> list[float]:
    return predict_row(model, row)


settings = {"queue": queue, "functions": [predict]}


class Client(AsyncPeer):
    distributions = ("saq", "redis")
    settings = "defaults; results polled together as `Queue.map` does, every 20 ms, a single one every 2 ms"

    def workers(self, processes: int) -> list[list[str]]:
        return [["-m", "saq", f"{__name__}.settings", "--workers", str(processes), "--quiet"]]

    async def connect_async(self) -> None:
        await queue.connect()

    async def submit_async(self, model: str, row: Row) -> Any:
        return await queue.enqueue("predict", model=model, row=row, timeout=RESULT_TIMEOUT)

    async def collect_async(self, jobs: Sequence[Any]) -> list[list[float]]:
        results: dict[str, list[float]] = {}
        waiting = [job.key for job in jobs]
        async with asyncio.timeout(RESULT_TIMEOUT):
            while waiting:
                # Jobs run in the order of submission, so the first 500 hold every new result.
                for job in await queue.jobs(waiting[:500]):
                    if job is not None and job.completed:
                        if job.error:
                            raise RuntimeError(job.error)
                        results[job.key] = job.result
                remaining = [key for key in waiting if key not in results]
                if len(remaining) == len(waiting):
                    await asyncio.sleep(poll_interval(jobs))
                waiting = remaining
        return [results[job.key] for job in jobs]

    async def close_async(self) -> None:
        await queue.disconnect()
