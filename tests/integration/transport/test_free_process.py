"""A pool process that is free while jobs wait gets the next claim at once, and keeps its processor."""

from __future__ import annotations

import os
from pathlib import Path

from headrace import Client
from tests.support import rare_polls
from tests.support.claim_models import SLEEP, add_model, running_worker
from tests.support.waiting import wait_until


def test_a_free_process_does_not_wait_for_the_next_poll(tmp_path: Path, redis_url: str):
    models = add_model(tmp_path, max_batch_instances=1)
    options = ("--concurrency", "1", *rare_polls.OPTIONS)
    with (
        running_worker(*options, url=redis_url, models=models, folder=tmp_path, **rare_polls.SETTINGS),
        Client(redis_url) as client,
    ):
        client.predict("doubling", [1, SLEEP, 0.02], timeout=20)
        for job in client.submit_many("doubling", [[1, SLEEP, 0.02]] * 20):
            job.result(timeout=20)


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
