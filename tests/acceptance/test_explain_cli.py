"""`headrace explain`, as a person and as a script call it."""

from __future__ import annotations

import json

import pytest
import redis

from tests.support.command import headrace
from tests.support.stock_worker import publish_stock_contract

GOLD = '{"age": 41, "plan": "gold"}'


@pytest.fixture
def url(redis_url: str) -> str:
    """A Redis with a queue that nobody takes jobs from."""
    publish_stock_contract(redis_url)
    return redis_url


def test_a_waiting_job_is_explained_in_words_and_as_json(url: str):
    job = headrace("submit", "churn", GOLD, "--meta", "by=billing", "--url", url).stdout.strip()
    told = headrace("explain", job, "--url", url)
    assert (told.returncode, told.stderr) == (0, "")
    first, submitted, now, metadata = told.stdout.splitlines()
    assert first == f"job {job} of churn: queued"
    assert submitted.endswith("  submitted")
    assert now.strip() == "now  waits in the queue; it is the next"
    assert metadata == "  metadata: by=billing"
    found = json.loads(headrace("explain", job, "--json", "--url", url).stdout)
    assert (found["job"], found["status"], found["steps"][-1]["what"]) == (job, "queued", "waiting")


def test_a_job_nobody_knows_exits_with_1(url: str, server: redis.Redis):
    told = headrace("explain", "nobody", "--url", url)
    assert told.returncode == 1
    assert "job nobody: unknown" in told.stdout
    assert "Traceback" not in told.stderr
