"""streaq."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from streaq import Worker

from benchmarks.peer import PATIENCE, URL, AsyncPeer, Row, poll, predict_row

worker: Worker[None] = Worker(redis_url=URL)


@worker.task
async def predict(model: str, row: Row) -> list[float]:
    return predict_row(model, row)


class Client(AsyncPeer):
    distributions = ("streaq", "coredis")
    settings = "defaults; `enqueue_many`; results of many polled every 20 ms"

    def workers(self, processes: int) -> list[list[str]]:
        return [["-m", "streaq", "run", f"{__name__}:worker", "--workers", str(processes)]]

    async def open_async(self) -> None:
        await worker.__aenter__()

    async def submit_async(self, model: str, row: Row) -> Any:
        return await predict.enqueue(model, row)

    async def submit_many_async(self, model: str, rows: Sequence[Row]) -> list[Any]:
        jobs: list[Any] = []
        for start in range(0, len(rows), 500):
            part = [predict.enqueue(model, row) for row in rows[start : start + 500]]
            await worker.enqueue_many(part)
            jobs += part
        return jobs

    async def collect_async(self, jobs: Sequence[Any]) -> list[list[float]]:
        if len(jobs) == 1:
            return [(await jobs[0].result(PATIENCE)).result]
        # `Task.result` takes a tenth of a second for its subscription alone: read what it would.
        results: dict[str, list[float]] = {}
        waiting = [job.id for job in jobs]
        async with asyncio.timeout(PATIENCE):
            while waiting:
                stored = await worker.redis.mget([worker.results_key + name for name in waiting[:500]])
                for name, raw in zip(waiting, stored, strict=False):
                    if raw is not None:
                        results[name] = (await worker.deserialize(raw))["r"]
                left = [name for name in waiting if name not in results]
                if len(left) == len(waiting):
                    await asyncio.sleep(poll(jobs))
                waiting = left
        return [results[job.id] for job in jobs]

    async def close_async(self) -> None:
        await worker.__aexit__(None, None, None)
