"""`headrace doctor` on queues, workers, models and Flower."""

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
from tests.support.stock_worker import publish_contract


@pytest.fixture
def url(redis_url: str) -> str:
    """A Redis with a model's contract, and nobody who serves it."""
    publish_contract(redis_url)
    return redis_url


def serve(server: redis.Redis, versions: list[str]) -> None:
    """Say what a worker says of what it has."""
    execute(server, publish_status(Keys(), "churn", "worker@pod-7", versions, {}))


def test_jobs_that_nobody_serves_are_an_error_until_a_worker_is_there(url: str, server: redis.Redis):
    with Client(url) as client:
        client.submit("churn", {"age": 41, "plan": "gold"})
    told = headrace("doctor", "--url", url)
    assert "service: BREAKS A PROMISE: predict.churn is served by no worker, with 1 job in it" in told.stdout
    assert told.returncode == 1
    serve(server, ["1"])
    assert "service:" not in headrace("doctor", "--url", url).stdout


def test_a_model_whose_version_the_store_has_lost_is_named(redis_url: str, tmp_path: Path):
    hostile_models.add(Store(tmp_path / "models"))
    (tmp_path / "models" / "obedient" / "1" / "manifest.json").write_text("{}")
    told = headrace("doctor", "--url", redis_url, HEADRACE_MODELS=str(tmp_path / "models"))
    assert told.returncode == 1
    assert "worker: BREAKS A PROMISE: obedient@newest is version 1: " in told.stdout
    assert "Traceback" not in told.stderr


def test_a_user_who_may_not_look_hears_so(url: str, server: redis.Redis):
    server.execute_command("ACL SETUSER short on >pw ~* &* +@all -time")
    try:
        told = headrace("doctor", "--url", url.replace("redis://", "redis://short:pw@"))
    finally:
        server.execute_command("ACL DELUSER short")
    assert "service: cannot be told: queues and workers is not permitted to this user" in told.stdout


@pytest.fixture
def flower() -> Iterator[tuple[str, dict[str, int]]]:
    """Something that answers as Flower does, and the status it answers with."""
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
    ("status", "said"),
    [
        (200, "flower: mind: Flower is open to whoever reaches"),
        (401, None),
        (302, None),
        (502, "flower: BREAKS A PROMISE: Flower is answering 502"),
    ],
)
def test_flower_is_looked_at_as_a_stranger_would(
    redis_url: str, flower: tuple[str, dict[str, int]], status: int, said: str | None
):
    at, answer = flower
    answer["status"] = status
    told = headrace("doctor", "--url", redis_url, "--flower", at).stdout
    assert (said in told) if said else ("flower:" not in told)


def test_a_flower_that_is_away_and_a_url_that_is_none_are_told(redis_url: str):
    away = headrace("doctor", "--url", redis_url, "--flower", "http://127.0.0.1:1")
    assert away.returncode == 1
    assert "not to be reached at http://127.0.0.1:1" in away.stdout
    none = headrace("doctor", "--url", redis_url, "--flower", "127.0.0.1:5555")
    assert none.stderr.endswith(
        "headrace: Flower's URL is http:// or https://, with a host: http://127.0.0.1:5555\n"
    )
