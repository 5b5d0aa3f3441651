"""Fixtures of all tests: a real Redis, emptied for each test."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import suppress

import pytest
import redis

from headrace_worker.local import stack
from headrace_worker.local.embedded_redis import EmbeddedRedis

pytest.register_assert_rewrite("tests.support")

#: The files that take longest.
_LONGEST = (
    "tests/chaos/test_chaos_short.py",
    "tests/acceptance/test_bench.py",
    "tests/acceptance/test_bench_http.py",
    "tests/integration/connection/test_credentials.py",
    "tests/integration/connection/test_cluster.py",
    "tests/acceptance/test_bench_bulk.py",
    "tests/integration/connection/test_acl.py",
    "tests/unit/store/test_hostile.py",
)


def pytest_configure() -> None:
    """Fork the workers that tests start (`tests.support.fork_server`), and let them be interrupted.

    A shell turns SIGINT off for background jobs, and the processes that tests start inherit that.
    """
    from tests.support.forked_processes import start_python  # after asserts of tests.support are rewritten

    stack.start_process = start_python  # type: ignore[assignment]  # it has the methods of Popen that are used
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first, the others in random order: no process is busy alone at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(_LONGEST))


@pytest.fixture(scope="session")
def redis_server() -> Iterator[EmbeddedRedis]:
    """Run a Redis for all tests of a process. To kill or reconfigure a Redis, start another one.

    It has our functions, as in production. Tests that run on every Redis run without them too.
    """
    from tests.support.functions import load_functions  # after asserts of tests.support are rewritten

    with EmbeddedRedis("--appendfsync", "no") as server:
        with redis.Redis.from_url(server.url) as admin, suppress(redis.ResponseError):  # Redis 6.2 has none
            load_functions(admin)
        yield server


@pytest.fixture
def redis_url(redis_server: EmbeddedRedis) -> Iterator[str]:
    """Return the URL of an empty Redis."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
        yield redis_server.url
        client.flushall()


@pytest.fixture
def server(redis_url: str) -> Iterator[redis.Redis]:
    """Return a redis-py client of the empty Redis."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture(autouse=True)
def _without_settings_of_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the settings of the shell that runs the tests from the environment."""
    import os

    for name in list(os.environ):
        if name.startswith("HEADRACE_") or name in {"REDIS_URL", "SENTRY_DSN"}:
            monkeypatch.delenv(name)
