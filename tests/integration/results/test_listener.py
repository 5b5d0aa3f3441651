"""Outcomes reach whoever waits: through cut connections and restarts, in threads, after fork, and once."""

from __future__ import annotations

import gc
import random
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator

import pytest
import redis

from headrace import Client, JobHandle
from headrace.errors import BrokerUnavailable, HeadraceError, JobExpired, JobFailed, ResultTimeout
from headrace.results import listener, listener_state
from headrace.wire.outcome import Expired, Failure, Outcome, Prediction, Success
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.answering_worker import Answering, end
from tests.support.waiting import wait_until

AGE = {"age": 41}


@pytest.fixture
def client(redis_url: str) -> Iterator[Client]:
    with Client(redis_url, check=False) as client:
        yield client


@pytest.fixture
def own_server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


def success(job: str) -> Outcome:
    return Success(job=job, prediction=Prediction(model="churn", version="3", predictions=[job]))


def listened_to(server: redis.Redis) -> set[str]:
    return {
        name.decode().removeprefix("celery-task-meta-") for name in server.pubsub_channels("celery-task-meta-*")
    }


def cut(server: redis.Redis) -> int:
    return int(server.execute_command("CLIENT", "KILL", "TYPE", "pubsub"))


def test_a_prediction_comes_back(client: Client, redis_url: str):
    with Answering(redis_url):
        prediction = client.predict("churn", instances=[{"age": 1}, {"age": 2}], timeout=10)
    assert (prediction.model, prediction.version, prediction.predictions) == ("churn", "3", [2, 4])


def test_predict_takes_no_look_for_a_fresh_id(client: Client, server: redis.Redis, redis_url: str):
    with Answering(redis_url):
        client.predict("churn", AGE, timeout=10)
        server.config_resetstat()
        for _ in range(20):
            client.predict("churn", AGE, timeout=10)
        stats = server.info("commandstats")
    assert "cmdstat_mget" not in stats
    assert "cmdstat_subscribe" not in stats
    assert stats["cmdstat_lpush"]["calls"] == 20


def test_predict_with_an_id_finds_the_outcome_that_is_there(client: Client, server: redis.Redis, redis_url: str):
    with Answering(redis_url) as worker:
        assert client.predict("churn", AGE, id="order-1", timeout=10).prediction == 82
        wait_until(lambda: not listened_to(server))
        began = time.monotonic()
        assert client.predict("churn", AGE, id="order-1", timeout=10).prediction == 82
        assert time.monotonic() - began < 5, "found, not waited for"
    assert worker.taken == ["order-1"]


def test_an_outcome_stored_before_anyone_waits_is_found(client: Client, server: redis.Redis):
    end(server, success("a"))
    assert client.job("a").result(timeout=10).prediction == "a"


def test_an_outcome_published_while_one_waits_arrives(client: Client, server: redis.Redis):
    timer = threading.Timer(0.1, end, args=(server, success("a")))
    timer.start()
    assert client.job("a").result(timeout=10).prediction == "a"
    timer.join()


def test_failures_are_raised_with_what_happened(client: Client, server: redis.Redis):
    end(
        server,
        Failure(job="a", reason="crash", error="WorkerLostError", module="m", message="gone"),
        Expired(job="b"),
    )
    with pytest.raises(JobFailed, match=r"job a failed \(crash\)") as caught:
        client.job("a").result(timeout=10)
    assert caught.value.reason == "crash"
    with pytest.raises(JobExpired):
        client.job("b").result(timeout=10)


def test_a_result_that_is_no_outcome_does_not_stop_the_others(client: Client, server: redis.Redis):
    server.set("celery-task-meta-a", b"no outcome")
    with pytest.raises(JobFailed, match="is no outcome of Headrace"):
        client.job("a").result(timeout=10)
    end(server, success("b"))
    assert client.job("b").result(timeout=10).prediction == "b"


def test_when_time_is_up_the_error_says_what_to_look_at(client: Client, server: redis.Redis):
    job = client.submit("churn", AGE)
    with pytest.raises(
        ResultTimeout, match=rf"job {job.id} has no outcome after 0.05 s; it is queued.*headrace queues"
    ):
        job.result(timeout=0.05)
    with pytest.raises(ResultTimeout, match="Redis knows no such job"):
        client.job("nobody").result(timeout=0.05)
    server.set("celery-task-meta-b", b'{"status": "STARTED", "task_id": "b"}')
    with pytest.raises(ResultTimeout, match="it is running"):
        client.job("b").result(timeout=0.05)


def test_no_time_at_all_is_enough_for_what_is_there(client: Client, server: redis.Redis):
    end(server, success("a"))
    assert client.job("a").result(timeout=0).prediction == "a"
    with pytest.raises(ResultTimeout):
        client.job("b").result(timeout=0)


def test_the_job_goes_on_after_a_wait_that_was_too_short(client: Client, redis_url: str):
    job = client.submit("churn", AGE)
    with pytest.raises(ResultTimeout):
        job.result(timeout=0.05)
    with Answering(redis_url):
        assert job.result(timeout=10).prediction == 82


def test_a_waiter_that_gave_up_leaves_no_subscription(client: Client, server: redis.Redis):
    for number in range(20):
        with pytest.raises(ResultTimeout):
            client.job(f"j{number}").result(timeout=0.02)
    wait_until(lambda: not listened_to(server))
    wait_until(lambda: not client._session.listener._state.subscriptions)


def test_an_iteration_left_early_leaves_no_subscription(client: Client, server: redis.Redis):
    end(server, success("a"))
    jobs = [client.job(name) for name in ("a", "b", "c")]
    for job in client.as_completed(jobs, timeout=10):
        assert job.id == "a"
        break
    gc.collect()
    wait_until(lambda: not listened_to(server))


def test_jobs_come_in_the_order_they_end(client: Client, server: redis.Redis):
    names = [f"j{number}" for number in range(50)]
    iterator = client.as_completed([client.job(name) for name in names], timeout=20)
    order = random.sample(names, len(names))
    server.config_resetstat()

    def publish() -> None:
        # The first look may find outcomes in any order; these are announced after it.
        wait_until(lambda: listened_to(server) == set(names) and "cmdstat_mget" in server.info("commandstats"))
        for name in order:
            end(server, success(name))

    thread = threading.Thread(target=publish)
    thread.start()
    assert [job.id for job in iterator] == order
    thread.join()


def test_the_time_of_an_iteration_is_for_all_of_it(client: Client, server: redis.Redis):
    end(server, success("a"))
    jobs = [client.job(name) for name in ("a", "b", "c")]
    iterator = client.as_completed(jobs, timeout=0.3)
    assert next(iterator).id == "a"
    with pytest.raises(ResultTimeout, match=r"2 of 3 jobs have no outcome after 0.3 s \(b, c\)"):
        next(iterator)


def test_a_job_given_twice_comes_twice(client: Client, server: redis.Redis):
    end(server, success("a"))
    jobs = [client.job("a"), client.job("a")]
    assert [job.result().prediction for job in client.as_completed(jobs, timeout=10)] == ["a", "a"]
    assert list(client.as_completed([], timeout=0)) == []
    assert list(client.as_completed(jobs, timeout=0)) == jobs, "what is known needs no time"


def test_thousands_of_jobs_are_waited_for_on_one_connection(client: Client, server: redis.Redis, redis_url: str):
    jobs = client.submit_many("churn", [{"age": number} for number in range(2000)])
    server.config_resetstat()
    with Answering(redis_url):
        iterator = client.as_completed(jobs, timeout=60)
        done = [next(iterator)]
        assert len(server.client_list(_type="pubsub")) == 1
        done += iterator
    assert len(done) == 2000
    assert {job.id: job.result().prediction for job in done} == {job.id: 2 * n for n, job in enumerate(jobs)}
    stats = server.info("commandstats")
    assert stats["cmdstat_subscribe"]["calls"] <= 10
    assert stats["cmdstat_mget"]["calls"] < 200, "chunks, not jobs"
    assert "cmdstat_get" not in stats
    wait_until(lambda: not listened_to(server))


def test_many_threads_wait_on_one_client(client: Client, server: redis.Redis, redis_url: str):
    results: dict[int, object] = {}

    def ask(number: int) -> None:
        jobs = client.submit_many("churn", [{"age": number + step} for step in range(20)])
        results[number] = sorted(job.result().prediction for job in client.as_completed(jobs, timeout=60))
        assert client.predict("churn", {"age": number}, timeout=60).prediction == 2 * number

    with Answering(redis_url):
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == {number: [2 * (number + step) for step in range(20)] for number in range(16)}
    assert [thread.name for thread in threading.enumerate()].count("headrace-listener") == 1


def test_several_waiters_of_one_job_all_hear_of_it(client: Client, server: redis.Redis):
    heard: list[str] = []
    threads = [
        threading.Thread(target=lambda: heard.append(client.job("a").result(timeout=20).prediction))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: listened_to(server) == {"a"})
    end(server, success("a"))
    for thread in threads:
        thread.join()
    assert heard == ["a"] * 8


def test_a_cut_connection_loses_no_outcome(client: Client, server: redis.Redis):
    names = [f"j{number}" for number in range(300)]
    iterator = client.as_completed([client.job(name) for name in names], timeout=30)

    def publish() -> None:
        wait_until(lambda: len(listened_to(server)) == 300)
        for number, name in enumerate(names):
            if number % 60 == 0:
                cut(server)
            end(server, success(name))

    thread = threading.Thread(target=publish)
    thread.start()
    assert {job.id for job in iterator} == set(names)
    thread.join()


def test_predictions_go_on_while_connections_are_cut(client: Client, server: redis.Redis, redis_url: str):
    stop = threading.Event()

    def harass() -> None:
        # Not those of the worker, whose BRPOP may take a job that then reaches nobody.
        ours = server.client_id()
        while not stop.wait(0.1):
            for one in server.client_list():
                if one["name"] != "answering" and int(one["id"]) != ours:
                    server.execute_command("CLIENT", "KILL", "ID", one["id"])

    thread = threading.Thread(target=harass)
    thread.start()
    try:
        with Answering(redis_url) as worker:
            for number in range(60):
                assert client.predict("churn", {"age": number}, timeout=30).prediction == 2 * number
        assert len(set(worker.taken)) == len(worker.taken), "no job was enqueued twice"
    finally:
        stop.set()
        thread.join()


def test_a_wait_outlives_a_crash_of_redis(own_server: EmbeddedRedis):
    with Client(own_server.url, check=False) as client:
        jobs = client.submit_many("churn", [{"age": number} for number in range(50)])
        done: list[JobHandle] = []
        thread = threading.Thread(target=lambda: done.extend(client.as_completed(jobs, timeout=60)))
        thread.start()
        with redis.Redis.from_url(own_server.url) as server:
            wait_until(lambda: len(listened_to(server)) == 50)
        own_server.kill()
        own_server.start()
        with Answering(own_server.url):
            thread.join()
        assert {job.result().prediction for job in done} == {2 * number for number in range(50)}


def test_a_redis_that_stays_away_is_told_when_time_is_up(own_server: EmbeddedRedis):
    with Client(own_server.url, check=False) as client:
        job = client.submit("churn", AGE)
        own_server.kill()
        began = time.monotonic()
        with pytest.raises(BrokerUnavailable, match=rf"127\.0\.0\.1:{own_server.port} cannot be reached"):
            job.result(timeout=0.5)
        with pytest.raises(BrokerUnavailable):
            list(client.as_completed([job], timeout=0.5))
        assert time.monotonic() - began < 5
        with pytest.raises(BrokerUnavailable):
            client.predict("churn", AGE, timeout=2)
        own_server.start()
        with Answering(own_server.url):
            assert job.result(timeout=30).prediction == 82


def test_the_thread_ends_when_nobody_waits_and_another_begins(
    client: Client, redis_url: str, server: redis.Redis, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(listener_state, "LINGER_SECONDS", 0.05)
    monkeypatch.setattr(listener, "_TICK_SECONDS", 0.02)
    with Answering(redis_url):
        for _ in range(3):
            assert client.predict("churn", AGE, timeout=10).prediction == 82
            wait_until(lambda: "headrace-listener" not in [thread.name for thread in threading.enumerate()])


def test_a_silent_connection_is_asked_and_given_up(
    client: Client, server: redis.Redis, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(listener_state, "PING_SECONDS", 0.05)
    monkeypatch.setattr(listener, "_TICK_SECONDS", 0.02)
    thread = threading.Thread(target=lambda: client.job("a").result(timeout=20))
    thread.start()
    wait_until(lambda: listened_to(server) == {"a"})
    server.config_resetstat()
    wait_until(lambda: server.info("commandstats").get("cmdstat_ping", {}).get("calls", 0) > 2)
    assert listened_to(server) == {"a"}, "answers keep it"
    end(server, success("a"))
    thread.join()


def test_closing_a_client_ends_the_waits_of_other_threads(redis_url: str, server: redis.Redis):
    client = Client(redis_url, check=False)
    errors: list[Exception] = []

    def wait() -> None:
        try:
            client.job("a").result(timeout=30)
        except HeadraceError as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    wait_until(lambda: listened_to(server) == {"a"})
    client.close()
    thread.join(timeout=10)
    assert [str(error) for error in errors] == ["the client was closed while this call waited"]
    client.close()
    with pytest.raises(HeadraceError, match="closed"):
        client.job("a").result(timeout=1)
    assert "headrace-listener" not in [thread.name for thread in threading.enumerate()]


def test_a_client_works_on_both_sides_of_a_fork(redis_url: str, server: redis.Redis):
    script = textwrap.dedent(
        """
        import os, sys
        from headrace import Client
        client = Client(sys.argv[1], check=False)
        assert client.predict("churn", {"age": 1}, timeout=20).prediction == 2
        waited = client.submit("churn", {"age": 5})
        child = os.fork()
        for age in range(20):
            assert client.predict("churn", {"age": age}, timeout=20).prediction == 2 * age
        assert waited.result(timeout=20).prediction == 10
        client.close()
        if not child:
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert status == 0, status
        """
    )
    with Answering(redis_url):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", script, redis_url], capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_a_program_that_forgets_to_close_ends_in_peace(redis_url: str):
    script = textwrap.dedent(
        """
        import sys
        from headrace import Client
        client = Client(sys.argv[1], check=False)
        client.predict("churn", {"age": 1}, timeout=20)
        """
    )
    with Answering(redis_url):
        done = subprocess.run(
            [sys.executable, "-c", script, redis_url], capture_output=True, text=True, timeout=30
        )
    assert (done.returncode, done.stderr) == (0, "")


def test_jobs_waited_for_in_bulk_and_cancelled_by_somebody_else_are_heard_of(client: Client, redis_url: str):
    jobs = client.submit_many("churn", [AGE] * 100)
    with Client(redis_url) as other:
        for job in jobs[:50]:
            assert other.job(job.id).cancel()
        ended = client.as_completed(jobs, timeout=20)
        first = [next(ended) for _ in range(50)]
        for job in jobs[50:]:
            assert other.job(job.id).cancel()
        rest = list(ended)
    assert {job.id for job in first} == {job.id for job in jobs[:50]}
    assert {job.id for job in rest} == {job.id for job in jobs[50:]}
    assert {job.status() for job in jobs} == {"cancelled"}


def test_waiting_for_thousands_takes_one_subscription(client: Client, server: redis.Redis, redis_url: str):
    jobs = client.submit_many("churn", [AGE] * 3000)
    server.config_resetstat()
    with Answering(redis_url):
        assert {job.id for job in client.as_completed(jobs, timeout=60)} == {job.id for job in jobs}
    assert server.info("commandstats")["cmdstat_subscribe"]["calls"] <= 2
