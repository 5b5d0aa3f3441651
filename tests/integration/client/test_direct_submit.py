"""A thread that submits alone goes to Redis directly, and no fault on this way loses a job or makes two of one."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
import redis

from headrace import BrokerUnavailable, Client
from headrace.catalog.published import publish_contract
from headrace.client.blocking import group_commit
from headrace.connection import bounded_pool
from headrace.connection.bounded_pool import BoundedPool
from headrace.settings import Settings
from headrace.wire.keys import Keys
from tests.support.answering_worker import CHURN
from tests.support.silent_redis import stopped
from tests.support.stalling_proxy import stalling_proxy
from tests.support.submitting import queued_ids

AGE = {"age": 41}


@pytest.fixture
def client(redis_url: str, server: redis.Redis) -> Iterator[Client]:
    """A client whose only connection has just been used."""
    publish_contract(server, Keys(), CHURN)
    with Client(redis_url) as client:
        client.submit("churn", AGE, id="warm")
        server.delete("predict.churn")
        yield client


@contextmanager
def interrupted(seconds: float) -> Iterator[None]:
    """Raise KeyboardInterrupt in this thread after so many seconds, as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGUSR1, interrupt)
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    try:
        yield
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, former)


def refuse(*args: Any, **options: Any) -> Any:
    raise AssertionError("a thread alone needs this not")


def idle_places(client: Client) -> int:
    """Return how many connections the pool of a client can still give."""
    return client._session.connections._redis.connection_pool.pool.qsize()  # type: ignore[attr-defined,no-any-return]


def test_a_thread_alone_neither_waits_nor_tests_its_connection(
    client: Client, server: redis.Redis, monkeypatch: pytest.MonkeyPatch
):
    client.submit("churn", AGE, id="a")
    monkeypatch.setattr(group_commit, "_Caller", refuse)
    monkeypatch.setattr(BoundedPool, "get_connection", refuse)
    assert [client.submit("churn", AGE, id=name).id for name in "bc"] == ["b", "c"]
    assert queued_ids(server) == ["a", "b", "c"]


@pytest.fixture
def tests_of_connections(monkeypatch: pytest.MonkeyPatch) -> list[BoundedPool]:
    """A list that grows with each connection that a pool tests before it gives it."""
    tested: list[BoundedPool] = []
    get_connection = BoundedPool.get_connection

    def count(pool: BoundedPool, *args: Any) -> Any:
        tested.append(pool)
        return get_connection(pool, *args)

    monkeypatch.setattr(BoundedPool, "get_connection", count)
    return tested


def test_a_connection_that_was_idle_is_tested(
    client: Client, tests_of_connections: list[BoundedPool], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(bounded_pool, "_READY_SECONDS", 0.0)
    client.submit("churn", AGE)
    tests_of_connections.clear()
    client.submit("churn", AGE)
    assert len(tests_of_connections) == 1


def test_a_connection_that_redis_py_used_is_tested(client: Client, tests_of_connections: list[BoundedPool]):
    client.submit("churn", AGE)
    client.models()
    tests_of_connections.clear()
    client.submit("churn", AGE)
    client.submit("churn", AGE)
    assert len(tests_of_connections) == 1


@pytest.mark.parametrize("options", ["", "?health_check_interval=0"])
def test_a_connection_closed_behind_its_last_reply_costs_no_job(redis_url: str, server: redis.Redis, options: str):
    with Client(redis_url + options, check=False) as client:
        for number in range(5):
            client.submit("churn", AGE, id=f"{number}-a")
            assert server.client_kill_filter(_type="normal", skipme=True) >= 1
            client.submit("churn", AGE, id=f"{number}-b")
        assert idle_places(client) == 50
    assert queued_ids(server) == [f"{number}-{name}" for number in range(5) for name in "ab"]


def test_a_reply_that_is_lost_makes_one_job(redis_url: str, server: redis.Redis):
    settings = Settings(command_timeout=2)
    with stalling_proxy(redis_url) as proxy, Client(proxy.url, settings=settings, check=False) as client:
        client.submit("churn", AGE, id="warm")
        client.submit("churn", AGE, id="warm-again")
        proxy.stall()  # the next call goes nowhere, over a connection that was used a moment ago
        assert client.submit("churn", AGE, id="a").id == "a"
        # Redis gets the call and the repeated call, and replies to neither in time.
        with stopped(redis_url), pytest.raises(BrokerUnavailable, match="in time"):
            client.submit("churn", AGE, id="b", timeout=0.4)
        assert client.submit("churn", AGE, id="b").id == "b"
        assert idle_places(client) == 50
    assert queued_ids(server) == ["warm", "warm-again", "a", "b"]


def test_ctrl_c_during_a_call_leaves_a_client_that_works(
    client: Client, server: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
):
    client.submit("churn", AGE, id="a")
    with stopped(redis_url), interrupted(0.1), pytest.raises(KeyboardInterrupt):
        client.submit("churn", AGE, id="b")
    assert idle_places(client) == 50
    monkeypatch.setattr(group_commit, "_Caller", refuse)  # no leader is left behind
    assert client.submit("churn", AGE, id="c").id == "c"
    assert client.submit("churn", AGE, id="b").id == "b", "whether Redis has it or not, it is one job"
    assert sorted(queued_ids(server)) == ["a", "b", "c"]


def test_ctrl_c_lets_the_thread_that_waits_lead(client: Client, server: redis.Redis, redis_url: str):
    followers: list[Future[Any]] = []
    with ThreadPoolExecutor(1) as threads:

        def follow() -> None:
            followers.append(threads.submit(client.submit, "churn", AGE, id="follower"))

        with stopped(redis_url), interrupted(0.15):
            timer = threading.Timer(0.05, follow)
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                client.submit("churn", AGE, id="first")
            timer.join()
        assert followers[0].result(10).id == "follower"
    assert "follower" in queued_ids(server)


def test_a_call_ends_in_its_time(client: Client, redis_url: str):
    client.submit("churn", AGE)
    with stopped(redis_url):
        started_at = time.monotonic()
        with pytest.raises(BrokerUnavailable, match="in time"):
            client.submit("churn", AGE, timeout=0.3)
        assert time.monotonic() - started_at < 1
    assert client.submit("churn", AGE, id="later").id == "later"


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_child_process_takes_no_connection_of_its_parent(client: Client, server: redis.Redis):
    client.submit("churn", AGE, id="before")
    addresses = {entry["addr"] for entry in server.client_list()}
    child = os.fork()
    if child == 0:
        code = 1
        try:
            client.submit("churn", AGE, id="child")
            code = 0 if {entry["addr"] for entry in server.client_list()} - addresses else 2
        finally:
            os._exit(code)
    client.submit("churn", AGE, id="parent")
    assert os.waitpid(child, 0)[1] == 0
    assert sorted(queued_ids(server)) == ["before", "child", "parent"]
