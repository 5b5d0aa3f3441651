"""celery-batches: Celery tasks that get many messages at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery import Celery
from celery_batches import Batches

from benchmarks.peer import PATIENCE, URL, Peer, Row, estimator

app = Celery("bench", broker=URL, backend=URL)
app.conf.broker_connection_retry_on_startup = True
app.conf.worker_prefetch_multiplier = 128


@app.task(base=Batches, flush_every=64, flush_interval=0.02)
def predict(requests: Sequence[Any]) -> None:
    by_model: dict[str, list[Any]] = {}
    for request in requests:
        by_model.setdefault(request.args[0], []).append(request)
    for model, asked in by_model.items():
        chances = estimator(model).predict_proba([request.args[1] for request in asked]).tolist()
        for request, row in zip(asked, chances, strict=True):
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
        return [job.get(timeout=PATIENCE) for job in jobs]
