"""Outcomes reach every caller that waits, in threads and in bulk, and each once."""

from __future__ import annotations

import gc
import random
import threading
import time
from collections.abc import Iterator

import pytest
import redis

from headrace import Client
from headrace.errors import JobExpired, JobFailed, ResultTimeout
from headrace.results import listener_state
from headrace.wire.outcome import Expired, Failure
from tests.support.answering_worker import AnsweringWorker, publish_outcomes, subscribed_jobs, success
from tests.support.waiting import wait_until

AGE = {"age": 41}


@pytest.fixture
def client(redis_url: str) -> Iterator[Client]:
    with Client(redis_url, check=False) as client:
        yield client


def test_a_prediction_comes_back(client: Client, redis_url: str):
    with AnsweringWorker(redis_url):
        prediction = client.predict("churn", instances=[{"age": 1}, {"age": 2}], timeout=10)
    assert (prediction.model, prediction.version, prediction.predictions) == ("churn", "3", [2, 4])


def test_predict_fetches_nothing_for_a_new_id(client: Client, server: redis.Redis, redis_url: str):
    with AnsweringWorker(redis_url):
        client.predict("churn", AGE, timeout=10)
        server.config_resetstat()
        for _ in range(20):
            client.predict("churn", AGE, timeout=10)
        stats = server.info("commandstats")
    assert "cmdstat_mget" not in stats
    assert "cmdstat_subscribe" not in stats
    assert stats["cmdstat_lpush"]["calls"] == 20


def test_predict_with_an_id_returns_the_stored_outcome(
    client: Client, server: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(listener_state, "REFETCH_SECONDS", 3600)  # fetched at once, or not before the timeout
    with AnsweringWorker(redis_url) as worker:
        assert client.predict("churn", AGE, id="order-1", timeout=10).prediction == 82
        wait_until(lambda: not subscribed_jobs(server))
        start = time.monotonic()
        assert client.predict("churn", AGE, id="order-1", timeout=60).prediction == 82
        assert time.monotonic() - start < 60  # not by the look-up after the timeout
    assert worker.received == ["order-1"]


def test_an_outcome_stored_before_the_wait_is_returned(client: Client, server: redis.Redis):
    publish_outcomes(server, success("a"))
    assert client.job("a").result(timeout=10).prediction == "a"


def test_an_outcome_published_during_the_wait_arrives(client: Client, server: redis.Redis):
    timer = threading.Timer(0.1, publish_outcomes, args=(server, success("a")))
    timer.start()
    assert client.job("a").result(timeout=10).prediction == "a"
    timer.join()


def test_failures_are_raised_with_their_reason(client: Client, server: redis.Redis):
    publish_outcomes(
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
    publish_outcomes(server, success("b"))
    assert client.job("b").result(timeout=10).prediction == "b"


def test_the_error_of_a_timeout_says_what_to_check(client: Client, server: redis.Redis):
    job = client.submit("churn", AGE)
    with pytest.raises(
        ResultTimeout, match=rf"job {job.id} has no outcome after 0.05 s; it is waiting.*headrace queues"
    ):
        job.result(timeout=0.05)
    with pytest.raises(ResultTimeout, match="Redis knows no such job"):
        client.job("never-submitted").result(timeout=0.05)
    server.set("celery-task-meta-b", b'{"status": "STARTED", "task_id": "b"}')
    with pytest.raises(ResultTimeout, match="it is running"):
        client.job("b").result(timeout=0.05)


def test_a_stored_outcome_is_returned_even_with_a_timeout_of_0(client: Client, server: redis.Redis):
    publish_outcomes(server, success("a"))
    assert client.job("a").result(timeout=0).prediction == "a"
    with pytest.raises(ResultTimeout):
        client.job("b").result(timeout=0)


def test_a_job_goes_on_after_a_timeout(client: Client, redis_url: str):
    job = client.submit("churn", AGE)
    with pytest.raises(ResultTimeout):
        job.result(timeout=0.05)
    with AnsweringWorker(redis_url):
        assert job.result(timeout=10).prediction == 82


def test_a_timeout_leaves_no_subscription(client: Client, server: redis.Redis):
    for number in range(20):
        with pytest.raises(ResultTimeout):
            client.job(f"j{number}").result(timeout=0.02)
    wait_until(lambda: not subscribed_jobs(server))
    wait_until(lambda: not client._session.listener._state.subscriptions)


def test_an_unfinished_iteration_leaves_no_subscription(client: Client, server: redis.Redis):
    publish_outcomes(server, success("a"))
    jobs = [client.job(name) for name in ("a", "b", "c")]
    for job in client.as_completed(jobs, timeout=10):
        assert job.id == "a"
        break
    gc.collect()
    wait_until(lambda: not subscribed_jobs(server))


def test_jobs_are_yielded_in_the_order_they_finish(client: Client, server: redis.Redis):
    names = [f"j{number}" for number in range(50)]
    iterator = client.as_completed([client.job(name) for name in names], timeout=20)
    order = random.sample(names, len(names))
    server.config_resetstat()

    def publish() -> None:
        # The first fetch may return outcomes in any order; these are announced after it.
        wait_until(lambda: subscribed_jobs(server) == set(names) and "cmdstat_mget" in server.info("commandstats"))
        for name in order:
            publish_outcomes(server, success(name))

    thread = threading.Thread(target=publish)
    thread.start()
    assert [job.id for job in iterator] == order
    thread.join()


def test_the_timeout_of_an_iteration_is_for_all_jobs(client: Client, server: redis.Redis):
    publish_outcomes(server, success("a"))
    jobs = [client.job(name) for name in ("a", "b", "c")]
    iterator = client.as_completed(jobs, timeout=0.3)
    assert next(iterator).id == "a"
    with pytest.raises(ResultTimeout, match=r"2 of 3 jobs have no outcome after 0.3 s \(b, c\)"):
        next(iterator)


def test_two_handles_of_one_job_are_both_yielded(client: Client, server: redis.Redis):
    publish_outcomes(server, success("a"))
    jobs = [client.job("a"), client.job("a")]
    assert [job.result().prediction for job in client.as_completed(jobs, timeout=10)] == ["a", "a"]
    assert list(client.as_completed([], timeout=0)) == []
    assert list(client.as_completed(jobs, timeout=0)) == jobs, "a handle with an outcome needs no wait"


def test_thousands_of_jobs_are_waited_for_on_one_connection(client: Client, server: redis.Redis, redis_url: str):
    jobs = client.submit_many("churn", [{"age": number} for number in range(2000)])
    server.config_resetstat()
    with AnsweringWorker(redis_url):
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
    wait_until(lambda: not subscribed_jobs(server))


def test_many_threads_wait_on_one_client(client: Client, server: redis.Redis, redis_url: str):
    results: dict[int, object] = {}

    def predict(number: int) -> None:
        jobs = client.submit_many("churn", [{"age": number + step} for step in range(20)])
        results[number] = sorted(job.result().prediction for job in client.as_completed(jobs, timeout=60))
        assert client.predict("churn", {"age": number}, timeout=60).prediction == 2 * number

    with AnsweringWorker(redis_url):
        threads = [threading.Thread(target=predict, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == {number: [2 * (number + step) for step in range(20)] for number in range(16)}
    assert [thread.name for thread in threading.enumerate()].count("headrace-listener") == 1


def test_several_waiters_of_one_job_all_receive_its_outcome(client: Client, server: redis.Redis):
    predictions: list[str] = []
    threads = [
        threading.Thread(target=lambda: predictions.append(client.job("a").result(timeout=20).prediction))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: subscribed_jobs(server) == {"a"})
    publish_outcomes(server, success("a"))
    for thread in threads:
        thread.join()
    assert predictions == ["a"] * 8


def test_jobs_on_the_reply_channel_that_another_client_cancels_are_yielded(client: Client, redis_url: str):
    jobs = client.submit_many("churn", [AGE] * 100)
    with Client(redis_url) as other:
        for job in jobs[:50]:
            assert other.job(job.id).cancel()
        finished = client.as_completed(jobs, timeout=20)
        first = [next(finished) for _ in range(50)]
        for job in jobs[50:]:
            assert other.job(job.id).cancel()
        second = list(finished)
    assert {job.id for job in first} == {job.id for job in jobs[:50]}
    assert {job.id for job in second} == {job.id for job in jobs[50:]}
    assert {job.status() for job in jobs} == {"cancelled"}


def test_waiting_for_thousands_takes_one_subscription(client: Client, server: redis.Redis, redis_url: str):
    jobs = client.submit_many("churn", [AGE] * 3000)
    server.config_resetstat()
    with AnsweringWorker(redis_url):
        assert {job.id for job in client.as_completed(jobs, timeout=60)} == {job.id for job in jobs}
    assert server.info("commandstats")["cmdstat_subscribe"]["calls"] <= 2


def test_a_client_whose_wait_ctrl_c_interrupts_at_its_start_closes(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
):
    def interrupt(_: threading.Thread) -> None:  # as Ctrl-C does before the thread has said that it runs
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupt)
    with pytest.raises(KeyboardInterrupt), Client(redis_url, check=False) as client:
        client.job("a").result(timeout=10)
