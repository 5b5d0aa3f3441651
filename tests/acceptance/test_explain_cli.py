"""Tests of `headrace explain`: its text and its JSON."""

from __future__ import annotations

import json

import pytest
import redis

from tests.support.command import headrace
from tests.support.stock_worker import publish_stock_contract

GOLD = '{"age": 41, "plan": "gold"}'


@pytest.fixture
def url(redis_url: str) -> str:
    """Return the URL of a Redis with a queue and no worker."""
    publish_stock_contract(redis_url)
    return redis_url


def test_a_waiting_job_is_explained_as_text_and_as_json(url: str):
    job = headrace("submit", "churn", GOLD, "--meta", "by=billing", "--url", url).stdout.strip()
    result = headrace("explain", job, "--url", url)
    assert (result.returncode, result.stderr) == (0, "")
    first, submitted, now, metadata = result.stdout.splitlines()
    assert first == f"job {job} of churn: waiting"
    assert submitted.endswith("  submitted")
    assert now.strip() == "now  waits in the queue; it is the next"
    assert metadata == "  metadata: by=billing"
    timeline = json.loads(headrace("explain", job, "--json", "--url", url).stdout)
    assert (timeline["job"], timeline["status"], timeline["steps"][-1]["kind"]) == (job, "waiting", "waiting")


def test_an_unknown_job_exits_with_1(url: str, server: redis.Redis):
    result = headrace("explain", "missing", "--url", url)
    assert result.returncode == 1
    assert "job missing: unknown" in result.stdout
    assert "Traceback" not in result.stderr
