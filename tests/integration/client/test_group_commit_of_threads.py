"""Submits of concurrent threads go to Redis together, and each thread has its own answer."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import pytest
import redis

from headrace import Client, JobHandle
from headrace.catalog.published import publish_contract
from headrace.client.blocking import group_commit
from headrace.errors import BrokerUnavailable, InvalidInput, JobConflict, QueueFull
from headrace.settings import Settings
from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.answering_worker import CHURN, AnsweringWorker
from tests.support.functions import count_script_calls
from tests.support.silent_redis import stopped
from tests.support.stalling_proxy import stalling_proxy
from tests.support.submitting import queued_ids

AGE = {"age": 41}


@pytest.fixture
def client(redis_url: str, server: redis.Redis) -> Iterator[Client]:
    """A client that has read the contract, and knows how scripts are called."""
    publish_contract(server, Keys(), CHURN)
    with Client(redis_url) as client:
        warm_up(client, server)
        yield client


def warm_up(client: Client, server: redis.Redis) -> None:
    client.submit("churn", AGE, id="warm")
    server.delete("predict.churn")
    server.config_resetstat()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(64) as threads:
        yield threads


@pytest.fixture
def patient_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no thread overtake a call, however long it takes."""
    monkeypatch.setattr(group_commit, "OVERTAKE_SECONDS", 60)


def submit_behind_a_call(
    url: str, client: Client, threads: ThreadPoolExecutor, calls: Sequence[Callable[[], JobHandle]]
) -> list[JobHandle | BaseException]:
    """Let one thread submit to a Redis that stands still, and then the others; return what each of these got."""
    with stopped(url):
        first = threads.submit(client.submit, "churn", AGE)
        time.sleep(0.05)
        others: list[Future[JobHandle]] = []
        for call in calls:  # one after the other, so that they wait in this order
            others.append(threads.submit(call))
            time.sleep(0.005)
    first.result(20)
    wait(others, 20)
    return [other.exception() or other.result() for other in others]


@pytest.mark.usefixtures("patient_threads")
def test_threads_that_submit_during_a_call_share_the_next(
    client: Client, server: redis.Redis, redis_url: str, threads: ThreadPoolExecutor
):
    calls = [lambda age=age: client.submit("churn", {"age": age}, id=f"{age}") for age in range(40)]
    results = submit_behind_a_call(redis_url, client, threads, calls)
    assert queued_ids(server)[1:] == [job.id for job in results if isinstance(job, JobHandle)]
    assert len(results) == 40
    # The first alone; then the next, which is handed the turn, with all others.
    assert count_script_calls(server) == 2


def test_a_thread_alone_waits_for_nobody(client: Client, server: redis.Redis):
    jobs = [client.submit("churn", AGE).id for _ in range(10)]
    assert count_script_calls(server) == 10
    assert queued_ids(server) == jobs


@pytest.mark.usefixtures("patient_threads")
def test_a_full_queue_refuses_only_those_who_came_last(
    redis_url: str, server: redis.Redis, threads: ThreadPoolExecutor
):
    with Client(settings=Settings(redis_url=redis_url, queue_limit=4), check=False) as client:
        warm_up(client, server)
        results = submit_behind_a_call(
            redis_url, client, threads, [lambda: client.submit("churn", AGE) for _ in range(6)]
        )
    assert [type(result) for result in results] == [JobHandle] * 3 + [QueueFull] * 3


@pytest.mark.usefixtures("patient_threads")
def test_a_conflict_and_bad_input_are_told_to_one_thread(
    client: Client, server: redis.Redis, redis_url: str, threads: ThreadPoolExecutor
):
    jobs: list[tuple[str, Any]] = [("a", 1), ("warm", 2), ("b", "x"), ("c", 3)]
    results = submit_behind_a_call(
        redis_url,
        client,
        threads,
        [lambda job=job, age=age: client.submit("churn", {"age": age}, id=job) for job, age in jobs],
    )
    assert [type(result) for result in results] == [JobHandle, JobConflict, InvalidInput, JobHandle]
    assert queued_ids(server)[1:] == ["a", "c"]


@pytest.mark.usefixtures("patient_threads")
@pytest.mark.parametrize("position", range(3))
def test_a_foreign_key_in_place_of_a_record_stops_one_thread(
    client: Client, server: redis.Redis, redis_url: str, threads: ThreadPoolExecutor, position: int
):
    server.lpush(Keys().job("x"), "not a record")
    names = ["a", "b"]
    names.insert(position, "x")
    results = submit_behind_a_call(
        redis_url, client, threads, [lambda job=job: client.submit("churn", AGE, id=job) for job in names]
    )
    assert [type(result) for result in results] == [
        BrokerUnavailable if job == "x" else JobHandle for job in names
    ]
    assert sorted(queued_ids(server)[1:]) == ["a", "b"]


def test_the_time_of_one_thread_ends_no_other(client: Client, redis_url: str, threads: ThreadPoolExecutor):
    with stopped(redis_url):
        hasty = [threads.submit(client.predict, "churn", AGE, id=f"hasty-{n}", timeout=0.3) for n in range(3)]
        patient = [threads.submit(client.submit, "churn", AGE) for _ in range(3)]
        for leaving in hasty:
            with pytest.raises(BrokerUnavailable, match="in time"):
                leaving.result(10)
        assert not any(future.done() for future in patient)
    assert len({future.result(20).id for future in patient}) == 3


def test_a_connection_that_says_nothing_holds_up_only_its_own_threads(
    redis_url: str, server: redis.Redis, threads: ThreadPoolExecutor
):
    settings = Settings(command_timeout=6)
    with stalling_proxy(redis_url) as proxy, Client(proxy.url, settings=settings, check=False) as client:
        warm_up(client, server)
        assert proxy.stall() == 1
        stalled = threads.submit(client.submit, "churn", AGE, id="stalled")
        time.sleep(0.01)
        others = [threads.submit(client.submit, "churn", AGE, id=f"other-{n}") for n in range(5)]
        assert sorted(other.result(5).id for other in others) == sorted(queued_ids(server))
        assert not stalled.done()
        assert client.submit("churn", AGE, id="later").id == "later"
        assert stalled.result(15).id == "stalled", "it is tried again over another connection"


def test_a_crash_of_redis_makes_one_job_of_each_id(threads: ThreadPoolExecutor):
    with EmbeddedRedis("--appendonly", "yes", "--appendfsync", "always") as own:
        with Client(own.url, check=False) as client:
            client.submit("churn", AGE, id="warm")

            def submit(caller: int) -> list[str]:
                return [client.submit("churn", AGE, id=f"{caller}-{turn}").id for turn in range(20)]

            futures = [threads.submit(submit, caller) for caller in range(30)]
            time.sleep(0.02)
            own.kill()
            own.start()
            accepted = [job for future in futures for job in future.result(30)]
        with redis.Redis.from_url(own.url) as server:
            jobs = queued_ids(server)
        assert sorted(jobs) == sorted(["warm", *accepted])
        for caller in range(30):
            mine = [job for job in jobs if job.startswith(f"{caller}-")]
            assert mine == [f"{caller}-{turn}" for turn in range(20)], "in the order of the thread"


def test_an_outage_is_told_to_every_thread(threads: ThreadPoolExecutor):
    settings = Settings(redis_url="redis://127.0.0.1:1/0", command_timeout=2)
    with Client(settings=settings, check=False) as client:
        futures = [threads.submit(client.submit, "churn", AGE) for _ in range(20)]
        for future in futures:
            with pytest.raises(BrokerUnavailable, match="cannot be reached"):
                future.result(20)


@pytest.mark.usefixtures("patient_threads")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_child_process_waits_for_no_thread_of_its_parent(
    client: Client, server: redis.Redis, redis_url: str, threads: ThreadPoolExecutor
):
    with stopped(redis_url):
        under_way = threads.submit(client.submit, "churn", AGE, id="parent")
        time.sleep(0.05)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = 0 if client.submit("churn", AGE, id="child").id == "child" else 2
            finally:
                os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert under_way.result(20).id == "parent"
    assert sorted(queued_ids(server)) == ["child", "parent"]


def test_predictions_of_many_threads_come_back(client: Client, redis_url: str, threads: ThreadPoolExecutor):
    start = threading.Barrier(64)

    def predict(age: int) -> float:
        start.wait(20)
        return float(client.predict("churn", {"age": age}, timeout=20).prediction)

    with AnsweringWorker(redis_url):
        assert list(threads.map(predict, range(64))) == [2 * age for age in range(64)]
