"""A direct subscriber receives the outcome of a prediction; without its connection, the listener does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import redis

from headrace import Client
from headrace.clock import Deadline
from headrace.connection.connect import connect
from headrace.results.direct import DirectSubscriber
from headrace.settings import Settings
from headrace.wire.keys import Keys
from headrace.wire.outcome import Outcome
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.chaos.proxy import Proxy
from tests.support.answering_worker import AnsweringWorker, double_age
from tests.support.waiting import wait_until


@pytest.fixture
def client(redis_url: str) -> Iterator[Client]:
    with Client(redis_url, check=False) as client:
        yield client


@pytest.fixture
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients wait long for a quick outcome, so that a busy machine does not make it a slow one."""
    monkeypatch.setattr("headrace.client.blocking.predict.SINGLE_WAIT_SECONDS", 20.0)


def predict(client: Client, age: int) -> int:
    prediction: int = client.predict("churn", {"age": age}, timeout=20).prediction
    return prediction


def subscribers(server: redis.Redis) -> list[str]:
    """Return the addresses of all connections with a subscription."""
    return [connection["addr"] for connection in server.client_list(_type="pubsub")]


@pytest.mark.usefixtures("_patient")
def test_a_quick_prediction_needs_no_other_thread(client: Client, redis_url: str):
    with AnsweringWorker(redis_url):
        assert [predict(client, age) for age in range(20)] == [2 * age for age in range(20)]
    assert "headrace-listener" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.usefixtures("_patient")
def test_threads_in_turn_share_a_subscriber_and_threads_at_once_have_one_each(
    client: Client, redis_url: str, server: redis.Redis
):
    barrier = threading.Barrier(4)

    def slowly(job: str, instances: list[dict[str, int]]) -> Outcome:
        time.sleep(0.005)
        return double_age(job, instances)

    def predict_together(age: int) -> None:
        barrier.wait(10)
        predictions[age] = predict(client, age)

    with AnsweringWorker(redis_url, answer=slowly):
        for age in range(5):
            thread = threading.Thread(target=predict, args=(client, age))
            thread.start()
            thread.join()
        assert len(subscribers(server)) == 1
        predictions: dict[int, int] = {}
        threads = [threading.Thread(target=predict_together, args=(age,)) for age in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert predictions == {age: 2 * age for age in range(4)}
    assert 1 < len(subscribers(server)) <= 4
    client.close()
    wait_until(lambda: not subscribers(server))


def test_the_outcome_of_a_slow_prediction_arrives_by_the_listener_and_is_not_taken_for_a_later_one(
    client: Client, redis_url: str
):
    def sometimes_slow(job: str, instances: list[dict[str, int]]) -> Outcome:
        if instances[0]["age"] % 3 == 0:
            time.sleep(0.08)  # longer than SINGLE_WAIT_SECONDS
        return double_age(job, instances)

    with AnsweringWorker(redis_url, answer=sometimes_slow):
        assert [predict(client, age) for age in range(12)] == [2 * age for age in range(12)]


def test_a_lost_connection_loses_no_prediction_and_is_replaced(
    client: Client, redis_url: str, server: redis.Redis
):
    with AnsweringWorker(redis_url):
        assert predict(client, 1) == 2
        (killed,) = subscribers(server)
        server.client_kill_filter(addr=killed)
        wait_until(lambda: not subscribers(server))
        assert predict(client, 2) == 4
        assert predict(client, 3) == 6
        assert killed not in subscribers(server)


def test_a_silent_connection_is_replaced_after_two_predictions(redis_server: EmbeddedRedis):
    with Proxy(redis_server.port) as proxy:
        settings = Settings(redis_url=proxy.url)
        subscriber = DirectSubscriber(connect(settings), Keys(), settings)
        assert subscriber.open(Deadline(5))
        silent_connection = subscriber._connection
        proxy.go_silent()
        for _ in range(2):
            assert subscriber.open(Deadline(5))
            assert subscriber._connection is silent_connection
            assert subscriber.receive("a", 0.05) is None
        assert subscriber.open(Deadline(5))
        assert subscriber._connection not in {silent_connection, None}
        subscriber.close()


def test_a_subscriber_does_not_open_without_redis():
    settings = Settings(redis_url="redis://127.0.0.1:1")
    assert not DirectSubscriber(connect(settings), Keys(), settings).open(Deadline(1))
