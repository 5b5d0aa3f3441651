"""Whatever happens to Redis and the network: a submit confirms its job, once, or raises; and waits go on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import pytest
import redis

from headrace import AsyncClient, BrokerUnavailable, Client, Settings
from headrace.wire.keys import queue_name
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.chaos.proxy import Proxy
from tests.support.answering_worker import AnsweringWorker
from tests.support.faults import repeatedly
from tests.support.redis_servers import SERVERS, find_server
from tests.support.waiting import wait_until

AGE = {"age": 41}
QUEUE = queue_name("churn")
Face = Literal["Client", "AsyncClient"]
FACES: list[Face] = ["Client", "AsyncClient"]


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedRedis]:
    """A server whose writes are on disk when they are confirmed."""
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture
def admin(server: EmbeddedRedis) -> Iterator[redis.Redis]:
    """One who looks on, and does harm; the server is empty."""
    with redis.Redis.from_url(server.url, client_name="admin") as admin:
        admin.flushall()
        yield admin


def waiting(admin: redis.Redis) -> Counter[str]:
    """The ids of the jobs that wait, and how often."""
    return Counter(json.loads(message)["headers"]["id"] for message in admin.lrange(QUEUE, 0, -1))


class Submitting:
    """Submits jobs one after the other, by either client; what was confirmed, and what was raised."""

    def __init__(self, face: Face, settings: Settings) -> None:
        self.confirmed: list[str] = []
        self.raised: list[BrokerUnavailable] = []
        self._face, self._settings = face, settings

    def some(self, go_on: Callable[[int], bool], **options: Any) -> Submitting:
        """Submit while it is to go on; `go_on` is told how many there were."""
        if self._face == "AsyncClient":
            asyncio.run(self._some(go_on, options))
            return self
        with Client(settings=self._settings, check=False) as client:
            at = 0
            while go_on(at):
                at += 1
                try:
                    self.confirmed.append(client.submit("churn", AGE, **options).id)
                except BrokerUnavailable as error:
                    self.raised.append(error)
        return self

    async def _some(self, go_on: Callable[[int], bool], options: dict[str, Any]) -> None:
        async with AsyncClient(settings=self._settings, check=False) as client:
            at = 0
            while go_on(at):
                at += 1
                try:
                    self.confirmed.append((await client.submit("churn", AGE, **options)).id)
                except BrokerUnavailable as error:
                    self.raised.append(error)


@contextmanager
def meanwhile(*steps: Callable[[], Any], after: float = 0.0) -> Iterator[None]:
    """Do these things in a thread."""

    def run() -> None:
        time.sleep(after)
        for step in steps:
            step()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def submitted_many(face: Face, settings: Settings, ids: list[str]) -> list[str]:
    """The ids of jobs that were submitted in one call, by either client."""

    async def by_asyncio() -> list[str]:
        async with AsyncClient(settings=settings, check=False) as client:
            return [job.id for job in await client.submit_many("churn", [AGE] * len(ids), ids=ids)]

    if face == "AsyncClient":
        return asyncio.run(by_asyncio())
    with Client(settings=settings, check=False) as client:
        return [job.id for job in client.submit_many("churn", [AGE] * len(ids), ids=ids)]


def settings(url: str, seconds: float = 10) -> Settings:
    return Settings(redis_url=url, command_timeout=seconds, connect_timeout=seconds)


@pytest.mark.parametrize("face", FACES)
def test_submits_outlast_a_crash_and_a_restart(face: Face, server: EmbeddedRedis, admin: redis.Redis):
    submitting = Submitting(face, settings(server.url))
    restarted = threading.Event()
    with meanwhile(server.kill, lambda: time.sleep(0.5), server.start, restarted.set, after=0.2):
        submitting.some(lambda _: not restarted.is_set())
        submitting.some(lambda at: at < 5)
    assert submitting.raised == []
    assert len(submitting.confirmed) > 10
    assert waiting(admin) == Counter(submitting.confirmed)


def test_a_redis_that_stays_away_is_told_when_the_time_for_a_command_is_over(server: EmbeddedRedis):
    with Client(settings=settings(server.url, 1), check=False) as client:
        client.submit("churn", AGE)
        server.kill()
        try:
            began = time.monotonic()
            with pytest.raises(BrokerUnavailable, match="cannot be reached"):
                client.submit("churn", AGE)
            assert 0.5 < time.monotonic() - began < 3
            began = time.monotonic()
            with pytest.raises(BrokerUnavailable, match="cannot be reached"):
                client.predict("churn", AGE, timeout=0.2)
            assert time.monotonic() - began < 0.9, "the time of a prediction is the caller's"
        finally:
            server.start()
        assert client.submit("churn", AGE).status() == "queued"


@pytest.mark.parametrize("face", FACES)
def test_submits_outlast_the_killing_of_every_connection(face: Face, server: EmbeddedRedis, admin: redis.Redis):
    submitting = Submitting(face, settings(server.url))
    with repeatedly(lambda: admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")):
        submitting.some(lambda at: at < 300)
    assert submitting.raised == []
    assert waiting(admin) == Counter(submitting.confirmed)


def test_predictions_outlast_the_killing_of_every_connection(server: EmbeddedRedis, admin: redis.Redis):
    def kill() -> None:
        # But for the stand-in of a worker, which pops: a reply it never reads is a job that is gone.
        for one in admin.client_list():
            if one["name"] != "answering" and one["id"] != str(admin.client_id()):
                with contextlib.suppress(redis.ResponseError):  # it went by itself meanwhile
                    admin.execute_command("CLIENT", "KILL", "ID", one["id"])

    with (
        Client(settings=settings(server.url), check=False) as client,
        AnsweringWorker(server.url),
        repeatedly(kill, every=0.2),
    ):
        began = time.monotonic()
        done = 0
        while time.monotonic() - began < 2:
            assert client.predict("churn", AGE, timeout=15).prediction == 82
            done += 1
    assert done > 3


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("name", SERVERS)
def test_submits_outlast_forgotten_scripts(face: Face, name: str):
    with EmbeddedRedis(server=find_server(name)) as server, redis.Redis.from_url(server.url) as admin:
        submitting = Submitting(face, settings(server.url))
        with repeatedly(admin.script_flush, every=0.002):
            submitting.some(lambda at: at < 200)
        assert submitting.raised == []
        assert waiting(admin) == Counter(submitting.confirmed)


@pytest.mark.parametrize("then", ["cut", "silent"])
@pytest.mark.parametrize("face", FACES)
def test_a_lost_reply_leaves_one_job_and_a_confirmed_submit(
    face: Face, then: Literal["cut", "silent"], server: EmbeddedRedis, admin: redis.Redis
):
    with Proxy(server.port) as proxy:
        submitting = Submitting(face, settings(proxy.url, 0.5))
        submitting.some(lambda at: at < 1)  # what is known to the server is not sent twice
        proxy.lose_reply(b"order-1", then=then)
        submitting.some(lambda at: at < 1, id="order-1")
        assert proxy.lost == 1
    assert submitting.raised == []
    assert waiting(admin) == Counter(submitting.confirmed)
    assert waiting(admin)["order-1"] == 1


@pytest.mark.parametrize("then", ["cut", "silent"])
@pytest.mark.parametrize("face", FACES)
def test_lost_replies_in_the_middle_of_many_leave_each_job_once(
    face: Face, then: Literal["cut", "silent"], server: EmbeddedRedis, admin: redis.Redis
):
    ids = [f"row-{at:04}" for at in range(1000)]
    with Proxy(server.port) as proxy:
        chosen = settings(proxy.url, 0.5)
        for lost in ("row-0100", "row-0400", "row-0999"):
            proxy.lose_reply(lost.encode(), then=then)
        assert submitted_many(face, chosen, ids) == ids
        assert proxy.lost == 3
    assert waiting(admin) == Counter(ids)


@pytest.mark.parametrize("face", FACES)
def test_connections_cut_while_many_are_submitted_leave_each_job_once(
    face: Face, server: EmbeddedRedis, admin: redis.Redis
):
    ids = [f"row-{at:05}" for at in range(20_000)]
    with Proxy(server.port) as proxy, repeatedly(proxy.cut):
        assert submitted_many(face, settings(proxy.url), ids) == ids
    assert waiting(admin) == Counter(ids)


def assert_no_more_clients_than(count: int, admin: redis.Redis) -> None:
    """Redis notices a moment later that a connection was closed."""
    deadline = time.monotonic() + 5
    while admin.info("clients")["connected_clients"] > count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def interrupted(error: BaseException) -> Iterator[Any]:
    """Rows whose source gives up when the first of them are under way."""
    yield from [AGE] * 250
    raise error


def test_a_caller_interrupted_while_jobs_are_under_way_leaves_a_client_that_goes_on(
    server: EmbeddedRedis, admin: redis.Redis
):
    with Client(settings=settings(server.url), check=False) as client:
        client.submit("churn", AGE)
        before = admin.info("clients")["connected_clients"]
        for _ in range(5):
            with pytest.raises(KeyboardInterrupt):
                client.submit_many("churn", interrupted(KeyboardInterrupt()))
        assert [job.id for job in client.submit_many("churn", [AGE] * 2, ids=["a", "b"])] == ["a", "b"]
        assert_no_more_clients_than(before, admin)


async def test_an_asyncio_caller_interrupted_while_jobs_are_under_way_waits_for_nothing_and_goes_on(
    server: EmbeddedRedis, admin: redis.Redis
):
    async with AsyncClient(settings=settings(server.url), check=False) as client:
        await client.submit("churn", AGE)
        before = admin.info("clients")["connected_clients"]
        for _ in range(5):
            admin.client_pause(500, all=False)  # the reply is long in coming
            with pytest.raises(ZeroDivisionError):
                await client.submit_many("churn", interrupted(ZeroDivisionError()))
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert all(task.cancelling() for task in left), left
            admin.client_unpause()
            await asyncio.wait_for(asyncio.gather(*left, return_exceptions=True), 5)
        assert [job.id for job in await client.submit_many("churn", [AGE] * 2, ids=["a", "b"])] == ["a", "b"]
        assert_no_more_clients_than(before + 1, admin)


@pytest.mark.parametrize("face", FACES)
def test_connections_that_fell_silent_cost_one_wait_however_many_there_were(
    face: Face, server: EmbeddedRedis, admin: redis.Redis
):
    with Proxy(server.port) as proxy:
        chosen = settings(proxy.url, 0.5)

        async def asyncio_too() -> float:
            async with AsyncClient(settings=chosen, check=False) as client:
                await asyncio.gather(*(client.submit("churn", AGE) for _ in range(8)))
                assert proxy.go_silent() >= 2
                began = time.monotonic()
                await client.submit("churn", AGE)
                return time.monotonic() - began

        def threads() -> float:
            with Client(settings=chosen, check=False) as client:
                proxy.delay(0.05)  # so that they need a connection each
                others = [threading.Thread(target=client.submit, args=("churn", AGE)) for _ in range(8)]
                for other in others:
                    other.start()
                for other in others:
                    other.join()
                proxy.delay(0)
                assert proxy.go_silent() >= 2
                began = time.monotonic()
                client.submit("churn", AGE)
                return time.monotonic() - began

        took = threads() if face == "Client" else asyncio.run(asyncio_too())
    assert 0.4 < took < 2
    assert admin.llen(QUEUE) == 9


def test_a_wait_on_a_connection_that_fell_silent_finds_the_outcome(
    server: EmbeddedRedis, admin: redis.Redis, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("headrace.results.listener_state.PING_SECONDS", 0.3)
    monkeypatch.setattr("headrace.results.listener._TICK_SECONDS", 0.05)
    with Proxy(server.port) as proxy, Client(settings=settings(proxy.url, 0.5), check=False) as client:
        job = client.submit("churn", AGE)
        with meanwhile(proxy.go_silent, lambda: answer(server.url), after=0.3):
            assert job.result(timeout=15).prediction == 82


def answer(url: str) -> None:
    """Answer the job that waits."""
    with AnsweringWorker(url) as worker:
        deadline = time.monotonic() + 10
        while not worker.received and time.monotonic() < deadline:
            time.sleep(0.01)


@pytest.mark.parametrize("name", SERVERS)
def test_submits_wait_for_a_redis_that_loads_its_data(name: str):
    with (
        EmbeddedRedis("--key-load-delay", "1000", server=find_server(name)) as server,
        redis.Redis.from_url(server.url) as admin,
        Client(settings=settings(server.url), check=False) as client,
    ):
        client.submit("churn", AGE)
        with admin.pipeline(transaction=False) as pipeline:
            for at in range(1500):
                pipeline.set(f"other:{at}", "x")
            pipeline.execute()
        server.kill()
        admin.close()
        with meanwhile(server.start):
            began = time.monotonic()
            client.submit("churn", AGE)
            assert time.monotonic() - began > 0.5, "it had to load"
        assert sum(waiting(admin).values()) == 2


@pytest.mark.parametrize("name", SERVERS)
def test_a_primary_made_a_replica_is_told_and_taken_again_when_it_is_back(name: str):
    with EmbeddedRedis(server=find_server(name)) as server, redis.Redis.from_url(server.url) as admin:
        submitting = Submitting("Client", settings(server.url))
        with Client(settings=settings(server.url), check=False) as client:
            first = client.submit("churn", AGE).id
            admin.replicaof("127.0.0.1", "1")
            began = time.monotonic()
            with pytest.raises(BrokerUnavailable, match="read-only replica"):
                client.submit("churn", AGE)
            assert time.monotonic() - began < 3
            submitting.some(lambda at: at < 1)
            assert "read-only replica" in str(submitting.raised[0])
            admin.replicaof("NO", "ONE")
            second = client.submit("churn", AGE).id
        assert waiting(admin) == Counter([first, second])


@pytest.mark.parametrize("name", SERVERS)
def test_a_redis_without_memory_is_told_at_once_and_nothing_is_left_of_the_job(name: str):
    with EmbeddedRedis(server=find_server(name)) as server, redis.Redis.from_url(server.url) as admin:
        with Client(settings=settings(server.url), check=False) as client:
            client.submit("churn", AGE, id="first")
            admin.config_set("maxmemory", "1")
            began = time.monotonic()
            with pytest.raises(BrokerUnavailable, match="has no memory left"):
                client.submit("churn", AGE, id="second")
            assert time.monotonic() - began < 1
            assert client.job("second").status() == "unknown"
            admin.config_set("maxmemory", "0")
            client.submit("churn", AGE, id="second")
        assert waiting(admin) == Counter(["first", "second"])


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize("harm", ["another kind", "no permission"])
def test_a_job_that_could_not_be_pushed_is_not_taken_for_known_when_it_comes_again(name: str, harm: str):
    with EmbeddedRedis(server=find_server(name)) as server, redis.Redis.from_url(server.url) as admin:
        if harm == "another kind":
            admin.set(QUEUE, "no list")
        else:
            admin.execute_command("ACL", "SETUSER", "default", "-lpush")
        chosen = Settings(redis_url=server.url, queue_limit=0)
        with Client(settings=chosen, check=False) as client:
            for _ in range(2):
                with pytest.raises(BrokerUnavailable):
                    client.submit("churn", AGE, id="one")
            assert client.job("one").status() == "unknown"
            admin.execute_command("ACL", "SETUSER", "default", "+lpush")
            admin.delete(QUEUE)
            client.submit("churn", AGE, id="one")
        assert waiting(admin) == Counter(["one"])


def test_a_redis_with_too_few_replicas_is_told(server: EmbeddedRedis, admin: redis.Redis):
    admin.config_set("min-replicas-to-write", 1)
    try:
        with (
            Client(settings=settings(server.url, 0.5), check=False) as client,
            pytest.raises(BrokerUnavailable, match="min-replicas-to-write"),
        ):
            client.submit("churn", AGE)
    finally:
        admin.config_set("min-replicas-to-write", 0)


def test_what_was_enqueued_before_redis_went_is_noted(server: EmbeddedRedis, admin: redis.Redis):
    def rows() -> Iterator[Any]:
        for at in range(500):
            if at == 300:
                wait_until(lambda: admin.llen(QUEUE) == 250)  # sent before, while these are packed
                admin.config_set("maxmemory", "1")
            yield AGE

    try:
        with (
            Client(settings=settings(server.url), check=False) as client,
            pytest.raises(BrokerUnavailable, match="no memory") as caught,
        ):
            client.submit_many("churn", rows())
    finally:
        admin.config_set("maxmemory", "0")
    assert caught.value.__notes__ == ["250 jobs of the same call were enqueued before"]
    assert admin.llen(QUEUE) == 250
