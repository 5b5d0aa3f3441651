"""A pool process that gets free while jobs wait takes the next claim at once, and keeps its processor."""

from __future__ import annotations

import os
import time
from pathlib import Path

from headrace import Client
from tests.support.claim_models import SLEEP, add_model, running_worker
from tests.support.waiting import wait_until


def test_a_process_that_gets_free_does_not_wait_for_the_next_poll(tmp_path: Path, redis_url: str):
    models = add_model(tmp_path, max_batch_instances=1)
    with (
        running_worker("--concurrency", "1", url=redis_url, models=models, folder=tmp_path),
        Client(redis_url) as client,
    ):
        client.predict("doubling", [1, SLEEP, 0.02], timeout=20)
        began = time.monotonic()
        for job in client.submit_many("doubling", [[1, SLEEP, 0.02]] * 20):
            job.result(timeout=20)
        took = time.monotonic() - began
    assert 0.4 < took < 1.5  # idle until the next poll, each would have taken a quarter of a second


def test_the_event_loop_takes_no_processor_from_a_process_that_runs_a_claim(tmp_path: Path, redis_url: str):
    models = add_model(tmp_path)
    with (
        running_worker("--max-tasks-per-child", "1", url=redis_url, models=models, folder=tmp_path) as worker,
        Client(redis_url) as client,
    ):
        pid = worker.process.pid

        def forks() -> set[int]:
            return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}

        first = forks()
        for _ in range(2):
            client.predict("doubling", [1, 0, 0], timeout=20)
        wait_until(
            lambda: len(forks() - first) == 2
        )  # replaced by the event loop, the others were there before it
        assert os.sched_getscheduler(pid) == os.SCHED_BATCH
        wait_until(lambda: {os.sched_getscheduler(fork) for fork in forks()} == {os.SCHED_OTHER})
