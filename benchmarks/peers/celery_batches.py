"""The peer celery-batches: Celery tasks that receive many messages in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery import Celery
from celery_batches import Batches

from benchmarks.peers.base import RESULT_TIMEOUT, URL, Peer, Row, estimator

app = Celery("bench", broker=URL, backend=URL)
app.conf.broker_connection_retry_on_startup = True
app.conf.worker_prefetch_multiplier = 128


@app.task(base=Batches, flush_every=64, flush_interval=0.02)
def predict(requests: Sequence[Any]) -> None:
    by_model: dict[str, list[Any]] = {}
    for request in requests:
        by_model.setdefault(request.args[0], []).append(request)
    for model, same_model in by_model.items():
        probabilities = estimator(model).predict_proba([request.args[1] for request in same_model]).tolist()
        for request, row in zip(same_model, probabilities, strict=True):
            app.backend.mark_as_done(request.id, row, request=request)


class Client(Peer):
    distributions = ("celery-batches", "celery", "redis")
    settings = "flush_every 64, flush_interval 0.02 s, prefetch 128 (it must exceed flush_every)"

    def workers(self, processes: int) -> list[list[str]]:
        return [
            ["-m", "celery", "-A", __name__, "worker", "--concurrency", str(processes), "--loglevel", "WARNING"]
        ]

    def submit_one(self, model: str, row: Row) -> Any:
        return predict.delay(model, row)

    def collect(self, jobs: Sequence[Any]) -> list[list[float]]:
        return [job.get(timeout=RESULT_TIMEOUT) for job in jobs]
