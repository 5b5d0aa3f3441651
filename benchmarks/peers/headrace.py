"""Headrace with its default settings."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from benchmarks.models import STORE
from benchmarks.peers.base import MODELS, RESULT_TIMEOUT, URL, Peer, Row
from headrace import Client as HeadraceClient


class Client(Peer):
    distributions = ("headrace", "headrace-worker", "celery", "redis")
    settings = "defaults: contracts checked on both sides, leases renewed, events for every job"

    def workers(self, processes: int) -> list[list[str]]:
        return [["-m", "headrace.cli", "worker", "--concurrency", str(processes), "--loglevel", "WARNING"]]

    def environ(self) -> dict[str, str]:
        return {"HEADRACE_REDIS_URL": URL, "HEADRACE_MODELS": str(MODELS / STORE)}

    def connect(self) -> None:
        self.client = HeadraceClient(URL)

    def wait_until_ready(self) -> None:
        # A producer checks input against the contract, which the worker publishes once its models are loaded.
        deadline = time.monotonic() + RESULT_TIMEOUT
        while not self.client.models():
            if time.monotonic() > deadline:
                raise TimeoutError("the worker published no contract")
            time.sleep(0.05)

    def submit_one(self, model: str, row: Row) -> Any:
        return self.client.submit(model, row)

    def submit(self, model: str, rows: Sequence[Row]) -> list[Any]:
        return list(self.client.submit_many(model, list(rows)))

    def collect(self, jobs: Sequence[Any]) -> list[list[float]]:
        for _ in self.client.as_completed(jobs, timeout=RESULT_TIMEOUT):
            pass
        return [job.result().prediction for job in jobs]

    def round_trip(self, model: str, row: Row) -> list[float]:
        probabilities: list[float] = self.client.predict(model, row, timeout=RESULT_TIMEOUT).prediction
        return probabilities

    def close(self) -> None:
        self.client.close()
