"""The peer huey."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from huey import RedisHuey

from benchmarks.peers.base import RESULT_TIMEOUT, URL, Peer, Row, poll_interval, predict_row

huey = RedisHuey("bench", url=URL)


@huey.task()
def predict(model: str, row: Row) -> list[float]:
    return predict_row(model, row)


class Client(Peer):
    distributions = ("huey", "redis")
    settings = "worker processes; results polled every 20 ms, a single one every 2 ms; no notify_result"

    def workers(self, processes: int) -> list[list[str]]:
        command = ["-m", "huey.bin.huey_consumer", f"{__name__}.huey", "--workers", str(processes)]
        return [[*command, "--worker-type", "process", "--quiet"]]

    def submit_one(self, model: str, row: Row) -> Any:
        return predict(model, row)

    def collect(self, jobs: Sequence[Any]) -> list[list[float]]:
        return [job.get(blocking=True, timeout=RESULT_TIMEOUT, max_delay=poll_interval(jobs)) for job in jobs]
