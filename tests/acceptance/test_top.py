"""`headrace top` in a real terminal, and for scripts, with a real worker."""

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
    """The Redis of a worker that serves `obedient`."""
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
        screen = terminal.shown.rsplit("\x1b[H", 1)[-1]
        assert "obedient" in screen
        assert "1 dead letter" in terminal.shown
        assert "\x1b[?1049h" in terminal.shown
        terminal.type(b"\x03")
        terminal.read()
        assert terminal.process.wait(10) == 0
    finally:
        terminal.process.kill()
        terminal.process.wait()
    assert terminal.shown.rstrip().endswith("\x1b[?1049l")
    assert "Traceback" not in terminal.shown


def test_json_of_one_look_tells_queues_and_workers(url: str):
    told = headrace("top", "--once", "--json", "--every", "3", "--url", url)
    assert told.returncode == 0, told.stderr
    seen = json.loads(told.stdout)
    assert [one["model"] for one in seen["queues"]] == ["obedient"]
    assert seen["workers"][0]["worker"].startswith("worker@")
    assert seen["workers"][0]["alive"] is True


def test_a_user_who_may_not_listen_sees_the_queues(url: str):
    with redis.Redis.from_url(url) as server:
        server.execute_command("ACL SETUSER deaf on >pw ~* +@all resetchannels &headrace:replies:* -lindex")
        try:
            told = headrace(
                "top", "--once", "--every", "0.1", "--url", url.replace("redis://", "redis://deaf:pw@")
            )
        finally:
            server.execute_command("ACL DELUSER deaf")
    assert told.returncode == 0, told.stderr
    assert "obedient" in told.stdout
    assert "may not listen to events" in told.stdout


def test_a_redis_that_is_away_is_one_sentence():
    told = headrace("top", "--once", "--every", "0.1", "--url", "redis://127.0.0.1:1/0")
    assert told.returncode == 1
    assert "cannot be reached" in told.stderr
    assert "Traceback" not in told.stderr
