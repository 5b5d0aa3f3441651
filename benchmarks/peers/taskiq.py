"""The peer taskiq, with Redis streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from benchmarks.peers.base import RESULT_TIMEOUT, URL, AsyncPeer, Row, poll_interval, predict_row

broker = RedisStreamBroker(url=URL).with_result_backend(RedisAsyncResultBackend(redis_url=URL))


@broker.task
async def predict(model: str, row: Row) -> list[float]:
    return predict_row(model, row)


class Client(AsyncPeer):
    distributions = ("taskiq", "taskiq-redis", "redis")
    settings = "RedisStreamBroker (acknowledges); results polled every 20 ms, a single one every 2 ms"

    def workers(self, processes: int) -> list[list[str]]:
        command = ["-m", "taskiq", "worker", f"{__name__}:broker", "--workers", str(processes)]
        return [[*command, "--log-level", "WARNING"]]

    async def connect_async(self) -> None:
        await broker.startup()

    async def submit_async(self, model: str, row: Row) -> Any:
        return await predict.kiq(model, row)

    async def collect_async(self, jobs: Sequence[Any]) -> list[list[float]]:
        results = [
            await job.wait_result(check_interval=poll_interval(jobs), timeout=RESULT_TIMEOUT) for job in jobs
        ]
        return [result.return_value for result in results]

    async def close_async(self) -> None:
        await broker.shutdown()
