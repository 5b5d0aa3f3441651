"""Tests of `headrace doctor` on queues, workers, models and Flower."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import redis

from headrace import Client
from headrace.catalog.workers import publish_status
from headrace.connection.commands import execute
from headrace.wire.keys import Keys
from headrace_worker.store.store import Store
from tests.support import hostile_models
from tests.support.command import headrace
from tests.support.stock_worker import publish_stock_contract


@pytest.fixture
def url(redis_url: str) -> str:
    """Return the URL of a Redis with a model's contract and no worker."""
    publish_stock_contract(redis_url)
    return redis_url


def publish_worker_status(server: redis.Redis, versions: list[str]) -> None:
    """Publish the status of a worker that has loaded these versions."""
    execute(server, publish_status(Keys(), "churn", "worker@pod-7", versions, {}))


def test_jobs_without_a_worker_are_an_error_until_a_worker_serves_them(url: str, server: redis.Redis):
    with Client(url) as client:
        client.submit("churn", {"age": 41, "plan": "gold"})
    result = headrace("doctor", "--url", url)
    assert "service: error: predict.churn is served by no worker, with 1 job in it" in result.stdout
    assert result.returncode == 1
    publish_worker_status(server, ["1"])
    assert "service:" not in headrace("doctor", "--url", url).stdout


def test_a_model_with_a_damaged_version_in_the_store_is_named(redis_url: str, tmp_path: Path):
    hostile_models.add(Store(tmp_path / "models"))
    (tmp_path / "models" / "obedient" / "1" / "manifest.json").write_text("{}")
    result = headrace("doctor", "--url", redis_url, HEADRACE_MODELS=str(tmp_path / "models"))
    assert result.returncode == 1
    assert "worker: error: obedient@newest is version 1: " in result.stdout
    assert "Traceback" not in result.stderr


def test_a_user_without_permission_learns_what_was_not_checked(url: str, server: redis.Redis):
    server.execute_command("ACL SETUSER short on >pw ~* &* +@all -time")
    try:
        result = headrace("doctor", "--url", url.replace("redis://", "redis://short:pw@"))
    finally:
        server.execute_command("ACL DELUSER short")
    assert "service: unknown: reading queues and workers is not permitted to this user" in result.stdout


@pytest.fixture
def flower() -> Iterator[tuple[str, dict[str, int]]]:
    """Start a stand-in for Flower; yields its URL, and a dictionary whose `status` it answers with."""
    answer = {"status": 200}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answer["status"])
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", answer
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "finding"),
    [
        (200, "flower: warning: Flower is open to anyone who reaches"),
        (401, None),
        (302, None),
        (502, "flower: error: Flower is answering 502"),
    ],
)
def test_flower_is_checked_without_logging_in(
    redis_url: str, flower: tuple[str, dict[str, int]], status: int, finding: str | None
):
    flower_url, answer = flower
    answer["status"] = status
    output = headrace("doctor", "--url", redis_url, "--flower", flower_url).stdout
    assert (finding in output) if finding else ("flower:" not in output)


def test_an_unreachable_flower_is_an_error_and_a_wrong_url_is_refused(redis_url: str):
    unreachable = headrace("doctor", "--url", redis_url, "--flower", "http://127.0.0.1:1")
    assert unreachable.returncode == 1
    assert "not reachable at http://127.0.0.1:1" in unreachable.stdout
    wrong = headrace("doctor", "--url", redis_url, "--flower", "127.0.0.1:5555")
    assert wrong.stderr.endswith(
        "headrace: Flower's URL is http:// or https:// with a host, such as http://127.0.0.1:5555\n"
    )
