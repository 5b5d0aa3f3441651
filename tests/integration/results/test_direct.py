"""The quick way to one outcome: who predicts hears of it itself, and misses nothing when that line is cut."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import redis

from headrace import Client
from headrace.connection.connect import connect
from headrace.results.direct import DirectSubscriber
from headrace.settings import Settings
from headrace.wire.keys import Keys
from headrace.wire.outcome import Outcome
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.chaos.proxy import Proxy
from tests.support.answering_worker import Answering, doubled
from tests.support.waiting import wait_until


@pytest.fixture
def client(redis_url: str) -> Iterator[Client]:
    with Client(redis_url, check=False) as client:
        yield client


def predicted(client: Client, age: int) -> int:
    prediction: int = client.predict("churn", {"age": age}, timeout=20).prediction
    return prediction


def listeners(server: redis.Redis) -> list[str]:
    """The addresses of those who listen to a channel of their own."""
    return [one["addr"] for one in server.client_list(_type="pubsub")]


def test_a_prediction_that_is_soon_there_needs_no_other_thread(client: Client, redis_url: str):
    with Answering(redis_url):
        assert [predicted(client, age) for age in range(20)] == [2 * age for age in range(20)]
    assert "headrace-listener" not in {thread.name for thread in threading.enumerate()}


def test_a_thread_after_another_uses_the_same_line_and_threads_at_once_have_their_own(
    client: Client, redis_url: str, server: redis.Redis
):
    together = threading.Barrier(4)

    def slowly(job: str, instances: list[dict[str, int]]) -> Outcome:
        time.sleep(0.005)
        return doubled(job, instances)

    def in_company(age: int) -> None:
        together.wait(10)
        found[age] = predicted(client, age)

    with Answering(redis_url, answer=slowly):
        for age in range(5):
            one = threading.Thread(target=predicted, args=(client, age))
            one.start()
            one.join()
        assert len(listeners(server)) == 1
        found: dict[int, int] = {}
        several = [threading.Thread(target=in_company, args=(age,)) for age in range(4)]
        for one in several:
            one.start()
        for one in several:
            one.join()
    assert found == {age: 2 * age for age in range(4)}
    assert 1 < len(listeners(server)) <= 4
    client.close()
    wait_until(lambda: not listeners(server))


def test_a_slow_prediction_is_waited_for_as_any_job_and_its_news_mixed_up_with_no_other(
    client: Client, redis_url: str
):
    def sometimes_slow(job: str, instances: list[dict[str, int]]) -> Outcome:
        if instances[0]["age"] % 3 == 0:
            time.sleep(0.08)  # longer than it listens
        return doubled(job, instances)

    with Answering(redis_url, answer=sometimes_slow):
        assert [predicted(client, age) for age in range(12)] == [2 * age for age in range(12)]


def test_a_line_that_is_cut_costs_no_prediction_and_is_made_anew(
    client: Client, redis_url: str, server: redis.Redis
):
    with Answering(redis_url):
        assert predicted(client, 1) == 2
        (former,) = listeners(server)
        server.client_kill_filter(addr=former)
        wait_until(lambda: not listeners(server))
        assert predicted(client, 2) == 4
        assert predicted(client, 3) == 6
        assert former not in listeners(server)


def test_a_line_that_fell_silent_is_given_up_after_two_predictions(redis_server: EmbeddedRedis):
    with Proxy(redis_server.port) as proxy:
        settings = Settings(redis_url=proxy.url)
        line = DirectSubscriber(connect(settings), Keys(), settings)
        assert line.open(5)
        silent = line._connection
        proxy.go_silent()
        for _ in range(2):
            assert line.open(5)
            assert line._connection is silent
            assert line.receive("a", 0.05) is None
        assert line.open(5)
        assert line._connection not in {silent, None}
        line.close()


def test_where_redis_is_away_a_line_says_so_in_the_time_it_is_given():
    nowhere = Settings(redis_url="redis://127.0.0.1:1")
    assert not DirectSubscriber(connect(nowhere), Keys(), nowhere).open(1)
