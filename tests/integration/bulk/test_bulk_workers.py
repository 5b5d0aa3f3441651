"""Workers for bulk runs only: `headrace worker --bulk`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import redis

from headrace import Client
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import Child
from tests.support import ROOT
from tests.support.bulk_site import BulkSite, add_bulk_model
from tests.support.waiting import wait_until

COMMAND = ["headrace.cli", "worker", "--bulk", "--concurrency", "1"]


def test_a_worker_for_bulk_runs_leaves_the_jobs_of_others_in_their_queue(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with EmbeddedRedis() as server:
        site = BulkSite(server, add_bulk_model(tmp_path), tmp_path)
        site.write_table(200)
        environ = {
            "HEADRACE_REDIS_URL": server.url,
            "HEADRACE_MODELS": str(site.models),
            "HEADRACE_LOCATIONS": f"in={site.input}:r,out={site.output}:w",
            "HEADRACE_TRUST_PICKLE": "true",
            "PYTHONPATH": str(ROOT),
        }
        with Client(server.url, check=False) as client, redis.Redis.from_url(server.url) as admin:
            online = client.submit("doubling", {"number": 1.0, "action": 0.0, "seconds": 0.0})
            site.submit("nightly")
            worker = Child("worker", COMMAND, environ, tmp_path / "worker.log")
            try:
                wait_until(lambda: worker.check() or site.read().state == "success", 60, worker.log.read_text)
                assert site.predictions() == {number: 2.0 * number for number in range(200)}
                assert online.status() == "waiting"
                assert admin.llen("predict.doubling") == 1
            finally:
                worker.stop()


def test_a_worker_for_bulk_runs_without_locations_says_what_it_lacks(tmp_path: Path) -> None:
    environ = {**os.environ, "HEADRACE_MODELS": str(tmp_path)}
    completed = subprocess.run(
        [sys.executable, "-m", *COMMAND], env=environ, capture_output=True, text=True, timeout=60
    )
    assert completed.returncode == 1
    assert "HEADRACE_BULK_ONLY needs HEADRACE_LOCATIONS" in completed.stderr
