"""The peer mayu, which has a core in Rust."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from mayu import App

from benchmarks.peers.base import RESULT_TIMEOUT, URL, Peer, Row, predict_row

#: Seconds after which the client asks for a single result again.
_POLL_SECONDS = 0.002

app = App(broker=URL, result_ttl=3600)


@app.task
def predict(model: str, row: Row) -> list[float]:
    return predict_row(model, row)


class Client(Peer):
    distributions = ("mayu",)
    settings = (
        "process mode, because of the interpreter lock; a single result polled every 2 ms (20 ms by default)"
    )

    def workers(self, processes: int) -> list[list[str]]:
        command = ["-m", "mayu", "worker", f"{__name__}:app", "--mode", "process"]
        return [[*command, "--processes", str(processes), "--log-level", "WARNING"]]

    def submit_one(self, model: str, row: Row) -> Any:
        return predict.delay(model, row)

    def collect(self, jobs: Sequence[Any]) -> list[list[float]]:
        return [job.result(timeout=RESULT_TIMEOUT) for job in jobs]

    def round_trip(self, model: str, row: Row) -> list[float]:
        job, deadline = predict.delay(model, row), time.monotonic() + RESULT_TIMEOUT
        while time.monotonic() < deadline:
            with suppress(TimeoutError):
                return job.result(timeout=_POLL_SECONDS)
        raise TimeoutError(job.id)
