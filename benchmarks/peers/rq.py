"""The peer RQ, with workers that do not fork for each job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis import Redis
from rq import Queue

from benchmarks.peers.base import RESULT_TIMEOUT, URL, Peer, Row, predict_row


class Client(Peer):
    distributions = ("rq", "redis")
    settings = "SimpleWorker (no fork for each job); enqueue_many; results by blocking read"

    def workers(self, processes: int) -> list[list[str]]:
        command = ["-m", "rq.cli", "worker-pool", "--url", URL, "--num-workers", str(processes), "--quiet"]
        return [[*command, "--worker-class", "rq.worker.SimpleWorker", "default"]]

    def connect(self) -> None:
        self.redis = Redis.from_url(URL)
        self.queue = Queue("default", connection=self.redis)

    def submit_one(self, model: str, row: Row) -> Any:
        return self.queue.enqueue(predict_row, model, row, description="predict")

    def submit(self, model: str, rows: Sequence[Row]) -> list[Any]:
        jobs: list[Any] = []
        for start in range(0, len(rows), 500):
            jobs += self.queue.enqueue_many(
                Queue.prepare_data(predict_row, (model, row), description="predict", timeout=180)
                for row in rows[start : start + 500]
            )
        return jobs

    def collect(self, jobs: Sequence[Any]) -> list[list[float]]:
        return [job.latest_result(timeout=RESULT_TIMEOUT).return_value for job in jobs]

    def close(self) -> None:
        self.redis.close()
