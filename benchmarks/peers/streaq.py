"""The peer streaq."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from streaq import Worker

from benchmarks.peers.base import RESULT_TIMEOUT, URL, AsyncPeer, Row, poll_interval, predict_row

worker: Worker[None] = Worker(redis_url=URL)


@worker.task
async def predict(model: str, row: Row) -> list[float]:
    return predict_row(model, row)


class Client(AsyncPeer):
    distributions = ("streaq", "coredis")
    settings = "defaults; `enqueue_many`; results of many polled every 20 ms"

    def workers(self, processes: int) -> list[list[str]]:
        return [["-m", "streaq", "run", f"{__name__}:worker", "--workers", str(processes)]]

    async def connect_async(self) -> None:
        await worker.__aenter__()

    async def submit_async(self, model: str, row: Row) -> Any:
        return await predict.enqueue(model, row)

    async def submit_many_async(self, model: str, rows: Sequence[Row]) -> list[Any]:
        jobs: list[Any] = []
        for start in range(0, len(rows), 500):
            tasks = [predict.enqueue(model, row) for row in rows[start : start + 500]]
            await worker.enqueue_many(tasks)
            jobs += tasks
        return jobs

    async def collect_async(self, jobs: Sequence[Any]) -> list[list[float]]:
        if len(jobs) == 1:
            return [(await jobs[0].result(RESULT_TIMEOUT)).result]
        # `Task.result` spends 0.1 s on its subscription alone, so read the stored results instead.
        results: dict[str, list[float]] = {}
        waiting = [job.id for job in jobs]
        async with asyncio.timeout(RESULT_TIMEOUT):
            while waiting:
                stored = await worker.redis.mget([worker.results_key + name for name in waiting[:500]])
                for name, raw in zip(waiting, stored, strict=False):
                    if raw is not None:
                        results[name] = (await worker.deserialize(raw))["r"]
                remaining = [name for name in waiting if name not in results]
                if len(remaining) == len(waiting):
                    await asyncio.sleep(poll_interval(jobs))
                waiting = remaining
        return [results[job.id] for job in jobs]

    async def close_async(self) -> None:
        await worker.__aexit__(None, None, None)
