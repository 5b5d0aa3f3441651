"""Fixtures every test may use: a real Redis of the session, emptied for each test."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import redis

from headrace_worker.local.embedded_redis import EmbeddedRedis

pytest.register_assert_rewrite("tests.support")


def pytest_configure() -> None:
    """Ctrl-C reaches what the tests start, also where the tests themselves run in the background of a shell."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[EmbeddedRedis]:
    """A real Redis, shared by the tests of a session. Start one of your own to kill or reconfigure it."""
    with EmbeddedRedis("--appendfsync", "no") as server:
        yield server


@pytest.fixture
def redis_url(redis_server: EmbeddedRedis) -> Iterator[str]:
    """The URL of an empty Redis."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
        yield redis_server.url
        client.flushall()


@pytest.fixture
def server(redis_url: str) -> Iterator[redis.Redis]:
    """A plain redis-py client of the empty Redis, to look behind the scenes."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture(autouse=True)
def _no_settings_of_this_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of the shell that runs the tests must not reach them."""
    import os

    for name in list(os.environ):
        if name.startswith("HEADRACE_") or name in {"REDIS_URL", "SENTRY_DSN"}:
            monkeypatch.delenv(name)
