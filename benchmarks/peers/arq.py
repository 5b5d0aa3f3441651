"""The peer arq."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from arq import create_pool
from arq.connections import RedisSettings

from benchmarks.peers.base import RESULT_TIMEOUT, URL, AsyncPeer, Row, poll_interval, predict_row


async def predict(_: dict[str, Any], model: str, row: Row) -> list[float]:
    return predict_row(model, row)


class WorkerSettings:
    functions = (predict,)
    redis_settings = RedisSettings.from_dsn(URL)
    poll_delay = 0.005
    log_results = False


class Client(AsyncPeer):
    distributions = ("arq", "redis")
    settings = "queue polled every 5 ms (0.5 s by default); results polled every 20 ms, a single one every 2 ms"

    def workers(self, processes: int) -> list[list[str]]:
        return [["-m", "arq", f"{__name__}.WorkerSettings"]] * processes

    async def connect_async(self) -> None:
        self.redis = await create_pool(RedisSettings.from_dsn(URL))

    async def submit_async(self, model: str, row: Row) -> Any:
        return await self.redis.enqueue_job("predict", model, row)

    async def collect_async(self, jobs: Sequence[Any]) -> list[list[float]]:
        return [await job.result(timeout=RESULT_TIMEOUT, poll_delay=poll_interval(jobs)) for job in jobs]

    async def close_async(self) -> None:
        await self.redis.aclose()
