"""A pool process that is free while jobs wait gets the next claim at once, and keeps its processor."""

from __future__ import annotations

import os
import time
from pathlib import Path

from headrace import Client
from tests.support.claim_models import SLEEP, add_model, running_worker
from tests.support.waiting import wait_until


def test_a_free_process_does_not_wait_for_the_next_poll(tmp_path: Path, redis_url: str):
    models = add_model(tmp_path, max_batch_instances=1)
    with (
        running_worker("--concurrency", "1", url=redis_url, models=models, folder=tmp_path),
        Client(redis_url) as client,
    ):
        client.predict("doubling", [1, SLEEP, 0.02], timeout=20)
        started = time.monotonic()
        for job in client.submit_many("doubling", [[1, SLEEP, 0.02]] * 20):
            job.result(timeout=20)
        seconds = time.monotonic() - started
    assert 0.4 < seconds < 1.5  # with a wait for the poll, each job would take a quarter of a second


def test_the_event_loop_takes_no_processor_from_a_process_that_runs_a_claim(tmp_path: Path, redis_url: str):
    models = add_model(tmp_path)
    with (
        running_worker("--max-tasks-per-child", "1", url=redis_url, models=models, folder=tmp_path) as worker,
        Client(redis_url) as client,
    ):
        pid = worker.process.pid

        def children() -> set[int]:
            return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}

        at_start = children()
        for _ in range(2):
            client.predict("doubling", [1, 0, 0], timeout=20)
        # The event loop replaces the processes; it had not started when it forked the first ones.
        wait_until(lambda: len(children() - at_start) == 2)
        assert os.sched_getscheduler(pid) == os.SCHED_BATCH
        wait_until(lambda: {os.sched_getscheduler(child) for child in children()} == {os.SCHED_OTHER})
