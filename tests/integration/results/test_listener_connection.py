"""A listener survives cut connections, restarts of Redis, forks and the end of its client."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator

import pytest
import redis

from headrace import Client, JobHandle, Settings
from headrace.errors import BrokerUnavailable, HeadraceError
from headrace.results import listener, listener_state
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.answering_worker import AnsweringWorker, publish_outcomes, subscribed_jobs, success
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


def kill_subscribers(server: redis.Redis) -> int:
    return int(server.execute_command("CLIENT", "KILL", "TYPE", "pubsub"))


def test_a_lost_connection_loses_no_outcome(client: Client, server: redis.Redis):
    names = [f"j{number}" for number in range(300)]
    iterator = client.as_completed([client.job(name) for name in names], timeout=30)

    def publish() -> None:
        wait_until(lambda: len(subscribed_jobs(server)) == 300)
        for number, name in enumerate(names):
            if number % 60 == 0:
                kill_subscribers(server)
            publish_outcomes(server, success(name))

    thread = threading.Thread(target=publish)
    thread.start()
    assert {job.id for job in iterator} == set(names)
    thread.join()


def test_predictions_go_on_while_connections_are_killed(client: Client, server: redis.Redis, redis_url: str):
    stop = threading.Event()

    def kill_connections() -> None:
        # Not the worker's: a job that its BRPOP has popped would be lost.
        own_id = server.client_id()
        while not stop.wait(0.1):
            for connection in server.client_list():
                if connection["name"] != "answering" and int(connection["id"]) != own_id:
                    server.execute_command("CLIENT", "KILL", "ID", connection["id"])

    thread = threading.Thread(target=kill_connections)
    thread.start()
    try:
        with AnsweringWorker(redis_url) as worker:
            for number in range(60):
                assert client.predict("churn", {"age": number}, timeout=30).prediction == 2 * number
        assert len(set(worker.received)) == len(worker.received), "no job was enqueued twice"
    finally:
        stop.set()
        thread.join()


def test_a_wait_survives_a_crash_of_redis(own_server: EmbeddedRedis):
    with Client(own_server.url, check=False) as client:
        jobs = client.submit_many("churn", [{"age": number} for number in range(50)])
        done: list[JobHandle] = []
        thread = threading.Thread(target=lambda: done.extend(client.as_completed(jobs, timeout=60)))
        thread.start()
        with redis.Redis.from_url(own_server.url) as server:
            wait_until(lambda: len(subscribed_jobs(server)) == 50)
        own_server.kill()
        own_server.start()
        with AnsweringWorker(own_server.url):
            thread.join()
        assert {job.result().prediction for job in done} == {2 * number for number in range(50)}


def test_a_timeout_while_redis_is_down_is_an_error_of_redis(own_server: EmbeddedRedis):
    with Client(own_server.url, check=False) as client:
        job = client.submit("churn", AGE)
        own_server.kill()
        start = time.monotonic()
        with pytest.raises(BrokerUnavailable, match=rf"127\.0\.0\.1:{own_server.port} cannot be reached"):
            job.result(timeout=0.5)
        with pytest.raises(BrokerUnavailable):
            list(client.as_completed([job], timeout=0.5))
        # Not after the timeout of a command, which a client without a timeout would retry for.
        assert time.monotonic() - start < Settings().command_timeout
        with pytest.raises(BrokerUnavailable):
            client.predict("churn", AGE, timeout=2)
        own_server.start()
        with AnsweringWorker(own_server.url):
            assert job.result(timeout=30).prediction == 82


def test_the_thread_ends_without_waiters_and_the_next_wait_starts_another(
    client: Client, redis_url: str, server: redis.Redis, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(listener_state, "LINGER_SECONDS", 0.05)
    monkeypatch.setattr(listener, "_TICK_SECONDS", 0.02)
    with AnsweringWorker(redis_url):
        for _ in range(3):
            assert client.predict("churn", AGE, timeout=10).prediction == 82
            wait_until(lambda: "headrace-listener" not in [thread.name for thread in threading.enumerate()])


def test_a_silent_connection_gets_a_ping_and_stays_if_it_answers(
    client: Client, server: redis.Redis, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(listener_state, "PING_SECONDS", 0.05)
    monkeypatch.setattr(listener, "_TICK_SECONDS", 0.02)
    thread = threading.Thread(target=lambda: client.job("a").result(timeout=20))
    thread.start()
    wait_until(lambda: subscribed_jobs(server) == {"a"})
    server.config_resetstat()
    wait_until(lambda: server.info("commandstats").get("cmdstat_ping", {}).get("calls", 0) > 2)
    assert subscribed_jobs(server) == {"a"}, "answers keep the connection"
    publish_outcomes(server, success("a"))
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
    wait_until(lambda: subscribed_jobs(server) == {"a"})
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
        job = client.submit("churn", {"age": 5})
        child = os.fork()
        for age in range(20):
            assert client.predict("churn", {"age": age}, timeout=20).prediction == 2 * age
        assert job.result(timeout=20).prediction == 10
        client.close()
        if not child:
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert status == 0, status
        """
    )
    with AnsweringWorker(redis_url):
        process = subprocess.run(
            [sys.executable, "-W", "error", "-c", script, redis_url], capture_output=True, text=True, timeout=60
        )
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""


def test_a_program_ends_quietly_without_closing_its_client(redis_url: str):
    script = textwrap.dedent(
        """
        import sys
        from headrace import Client
        client = Client(sys.argv[1], check=False)
        client.predict("churn", {"age": 1}, timeout=20)
        """
    )
    with AnsweringWorker(redis_url):
        process = subprocess.run(
            [sys.executable, "-c", script, redis_url], capture_output=True, text=True, timeout=30
        )
    assert (process.returncode, process.stderr) == (0, "")
