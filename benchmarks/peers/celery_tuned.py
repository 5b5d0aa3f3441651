"""The peer Celery, tuned for throughput: batched publishes, a deep prefetch, unneeded features off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery import Celery

from benchmarks.peers.base import RESULT_TIMEOUT, URL, Peer, Row, predict_row

app = Celery("bench", broker=URL, backend=URL)
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=64,
    worker_disable_rate_limits=True,
    worker_enable_remote_control=False,
    task_send_sent_event=False,
    result_extended=False,
    task_store_errors_even_if_ignored=False,
)


@app.task
def predict(model: str, row: Row) -> list[float]:
    return predict_row(model, row)


class Client(Peer):
    distributions = ("celery", "kombu", "redis")
    settings = (
        "acks_late, prefetch 64, no rate limits, remote control, gossip, mingle or heartbeat; publishes in "
        "kombu's `Producer.batch()`, arguments not described"
    )

    def workers(self, processes: int) -> list[list[str]]:
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING"]
        return [["-m", "celery", "-A", __name__, "worker", "--concurrency", str(processes), *quiet]]

    def submit_one(self, model: str, row: Row) -> Any:
        return predict.apply_async((model, row), argsrepr="", kwargsrepr="")

    def submit(self, model: str, rows: Sequence[Row]) -> list[Any]:
        with app.producer_pool.acquire(block=True) as producer, producer.batch():
            return [
                predict.apply_async((model, row), argsrepr="", kwargsrepr="", producer=producer) for row in rows
            ]

    def collect(self, jobs: Sequence[Any]) -> list[list[float]]:
        return [job.get(timeout=RESULT_TIMEOUT) for job in jobs]
