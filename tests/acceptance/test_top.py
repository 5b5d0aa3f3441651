"""Tests of `headrace top` in a terminal and for scripts, with a worker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from headrace import Client
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import start_worker
from headrace_worker.store.store import Store
from tests.support import hostile_models
from tests.support.command import headrace
from tests.support.terminal import Terminal


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a Redis and a worker that serves `obedient`; return the URL."""
    folder: Path = tmp_path_factory.mktemp("top")
    hostile_models.add(Store(folder / "models"))
    with EmbeddedRedis("--appendfsync", "no") as redis_server:
        worker = start_worker(redis_server.url, folder / "models", folder, concurrency=1, **hostile_models.SERVING)
        try:
            yield redis_server.url
        finally:
            worker.stop()


def test_a_terminal_shows_rates_workers_and_failures_until_ctrl_c(url: str):
    terminal = Terminal("top", "--every", "0.5", "--url", url)
    try:
        terminal.read("worker@")
        with Client(url) as client:
            for job in client.submit_many("obedient", [hostile_models.instance()] * 20):
                job.result(timeout=20)
            client.submit("obedient", hostile_models.instance("raise")).outcome(timeout=20)
        terminal.read("ValueError")
        screen = terminal.output.rsplit("\x1b[H", 1)[-1]
        assert "obedient" in screen
        assert "1 dead letter" in terminal.output
        assert "\x1b[?1049h" in terminal.output
        terminal.type(b"\x03")
        terminal.read()
        assert terminal.process.wait(10) == 0
    finally:
        terminal.process.kill()
        terminal.process.wait()
    assert terminal.output.rstrip().endswith("\x1b[?1049l")
    assert "Traceback" not in terminal.output


def test_one_page_as_json_has_queues_and_workers(url: str):
    result = headrace("top", "--once", "--json", "--every", "3", "--url", url)
    assert result.returncode == 0, result.stderr
    overview = json.loads(result.stdout)
    assert [queue["model"] for queue in overview["queues"]] == ["obedient"]
    assert overview["workers"][0]["worker"].startswith("worker@")
    assert overview["workers"][0]["alive"] is True


def test_a_user_who_may_not_listen_sees_the_queues(url: str):
    with redis.Redis.from_url(url) as server:
        server.execute_command("ACL SETUSER deaf on >pw ~* +@all resetchannels &headrace:replies:* -lindex")
        try:
            result = headrace(
                "top", "--once", "--every", "0.1", "--url", url.replace("redis://", "redis://deaf:pw@")
            )
        finally:
            server.execute_command("ACL DELUSER deaf")
    assert result.returncode == 0, result.stderr
    assert "obedient" in result.stdout
    assert "may not listen to events" in result.stdout


def test_an_unreachable_redis_is_one_line():
    result = headrace("top", "--once", "--every", "0.1", "--url", "redis://127.0.0.1:1/0")
    assert result.returncode == 1
    assert "cannot be reached" in result.stderr
    assert "Traceback" not in result.stderr
