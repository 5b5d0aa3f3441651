"""The peer dramatiq, with its Redis broker and result backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.peers.base import RESULT_TIMEOUT, URL, Peer, Row, predict_row

broker = RedisBroker(url=URL)
broker.add_middleware(Results(backend=RedisBackend(url=URL)))
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=True)
def predict(model: str, row: Row) -> list[float]:
    return predict_row(model, row)


class Client(Peer):
    distributions = ("dramatiq", "redis")
    settings = "one thread per process, since prediction holds the interpreter lock"

    def workers(self, processes: int) -> list[list[str]]:
        return [["-m", "dramatiq", __name__, "--processes", str(processes), "--threads", "1"]]

    def submit_one(self, model: str, row: Row) -> Any:
        return predict.send(model, row)

    def collect(self, jobs: Sequence[Any]) -> list[list[float]]:
        return [job.get_result(block=True, timeout=RESULT_TIMEOUT * 1000) for job in jobs]
