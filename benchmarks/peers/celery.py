"""The peer Celery, configured as in its first steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery import Celery

from benchmarks.peers.base import RESULT_TIMEOUT, URL, Peer, Row, predict_row

app = Celery("bench", broker=URL, backend=URL)
app.conf.broker_connection_retry_on_startup = True


@app.task
def predict(model: str, row: Row) -> list[float]:
    return predict_row(model, row)


class Client(Peer):
    distributions = ("celery", "kombu", "redis")

    def workers(self, processes: int) -> list[list[str]]:
        return [
            ["-m", "celery", "-A", __name__, "worker", "--concurrency", str(processes), "--loglevel", "WARNING"]
        ]

    def submit_one(self, model: str, row: Row) -> Any:
        return predict.delay(model, row)

    def collect(self, jobs: Sequence[Any]) -> list[list[float]]:
        return [job.get(timeout=RESULT_TIMEOUT) for job in jobs]
