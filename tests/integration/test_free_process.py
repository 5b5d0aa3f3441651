"""A pool process that gets free while jobs wait takes the next claim at once."""

from __future__ import annotations

import time
from pathlib import Path

from claim_models import SLEEP, add, serving

from headrace import Client


def test_a_process_that_gets_free_does_not_wait_for_the_next_poll(tmp_path: Path, redis_url: str):
    models = add(tmp_path, max_batch_rows=1)
    with (
        serving("--concurrency", "1", url=redis_url, models=models, folder=tmp_path),
        Client(redis_url) as client,
    ):
        client.predict("doubling", [1, SLEEP, 0.02], timeout=20)
        began = time.monotonic()
        for job in client.submit_many("doubling", [[1, SLEEP, 0.02]] * 20):
            job.result(timeout=20)
        took = time.monotonic() - began
    assert 0.4 < took < 1.5  # idle until the next poll, each would have taken a quarter of a second
