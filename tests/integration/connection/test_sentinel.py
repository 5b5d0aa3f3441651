"""Redis is found by Sentinel: when the primary is killed, everything goes on with the promoted replica."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis
from redis.sentinel import Sentinel

from headrace import AsyncClient, Client, HeadraceError, Settings
from headrace.connection.celery import create_celery_app
from headrace.errors import BrokerUnavailable
from headrace.wire.queues import TASK
from tests.support.claim_models import SLEEP, add_model, count_claims, running_worker
from tests.support.connections import (
    MODEL,
    close_pools,
    count_waiting_in_flower,
    exercise_celery_app,
    exercise_client,
    free_port,
    running_server,
)
from tests.support.redis_servers import find_server
from tests.support.waiting import wait_until

NAME, PASSWORD, SENTINEL_PASSWORD = "jobs", "of-redis", "of-the-sentinels"


class Group(NamedTuple):
    """A primary, a replica and three Sentinels."""

    url: str
    servers: dict[int, Any]
    sentinels: list[int]

    def primary(self) -> int:
        """Return the port of the primary according to the Sentinels."""
        sentinels = Sentinel(
            [("127.0.0.1", port) for port in self.sentinels],
            sentinel_kwargs={"password": SENTINEL_PASSWORD},
        )
        with sentinels:
            return int(sentinels.discover_master(NAME)[1])


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    tmp_path = tmp_path_factory.mktemp("group")
    ports = [free_port() for _ in range(5)]
    primary, replica, *sentinels = ports
    server = find_server("path")
    login = ["--requirepass", PASSWORD, "--masterauth", PASSWORD]
    with ExitStack() as stack:
        servers: dict[int, Any] = {}
        for port in (primary, replica):
            folder = tmp_path / f"redis-{port}"
            folder.mkdir()
            command = [server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder, *login]
            command += ["--repl-diskless-sync-delay", "0"]
            if port == replica:
                command += ["--replicaof", f"127.0.0.1 {primary}"]
            client = redis.Redis(port=port, password=PASSWORD)
            servers[port] = stack.enter_context(running_server(command, folder, "redis", client))
        for port in sentinels:
            folder = tmp_path / f"sentinel-{port}"
            folder.mkdir()
            # Each Sentinel has a configuration file, to which it writes its state.
            (folder / "sentinel.conf").write_text(
                f"port {port}\nbind 127.0.0.1\nrequirepass {SENTINEL_PASSWORD}\n"
                f"sentinel monitor {NAME} 127.0.0.1 {primary} 2\nsentinel auth-pass {NAME} {PASSWORD}\n"
                f"sentinel sentinel-pass {SENTINEL_PASSWORD}\n"
                f"sentinel down-after-milliseconds {NAME} 1000\nsentinel failover-timeout {NAME} 3000\n"
            )
            client = redis.Redis(port=port, password=SENTINEL_PASSWORD)
            command = [server, folder / "sentinel.conf", "--sentinel"]
            stack.enter_context(running_server(command, folder, "sentinel", client))
        group = Group(url(sentinels), servers, sentinels)
        wait_until(lambda: all(_knows_all(port) for port in sentinels))
        yield group


def url(sentinels: list[int]) -> str:
    hosts = ";".join(f"sentinel://:{PASSWORD}@127.0.0.1:{port}" for port in sentinels)
    return f"{hosts}/0?master_name={NAME}&sentinel_password={SENTINEL_PASSWORD}"


def _knows_all(port: int) -> bool:
    with redis.Redis(port=port, password=SENTINEL_PASSWORD) as client:
        state = client.sentinel_master(NAME)
        return bool(state["num-slaves"] == 1 and state["num-other-sentinels"] == 2)


def test_client_and_worker_follow_a_failover(group: Group, tmp_path: Path) -> None:
    settings = Settings(redis_url=group.url)
    with (
        Client(settings=settings, check=False) as client,
        running_worker(url=group.url, models=add_model(tmp_path), folder=tmp_path, HEADRACE_LEASE="2") as worker,
    ):
        exercise_client(settings)
        exercise_celery_app(settings)
        former = group.primary()
        running = client.submit(MODEL, [7, SLEEP, 1])
        with redis.Redis(port=former, password=PASSWORD) as primary:
            wait_until(lambda: count_claims(primary))
            assert primary.wait(1, 5000) == 1  # writes that the replica does not have are lost with the primary
        os.kill(group.servers[former].pid, signal.SIGKILL)
        assert running.result(timeout=30).prediction == 14
        assert wait_until(lambda: _predicts(client), describe=lambda: worker.log.read_text()[-3000:]) == 42
        assert group.primary() != former
        exercise_client(settings)
        exercise_celery_app(settings)
        assert worker.process.poll() is None
        with create_celery_app(settings) as app:
            stats = json.dumps(app.control.inspect(timeout=5, limit=1).stats())
            close_pools(app)
        output = stats + worker.log.read_text()
    assert "headrace-sentinel" in stats
    assert PASSWORD not in output
    assert SENTINEL_PASSWORD not in output


def _predicts(client: Client) -> Any:
    try:
        return client.predict(MODEL, [21, 0, 0], timeout=5).prediction
    except HeadraceError:
        return None


def test_flower_finds_the_primary_too(group: Group) -> None:
    settings = Settings(redis_url=group.url)
    before = count_waiting_in_flower(settings)
    with Client(settings=settings, check=False) as client:
        client.submit_many(MODEL, [[n, 0, 0] for n in range(3)])
    assert count_waiting_in_flower(settings) == before + 3


def test_an_unknown_name_of_the_primary_is_reported_without_a_password(group: Group) -> None:
    wrong = group.url.replace(f"={NAME}", "=other")
    with Client(wrong) as client, pytest.raises(BrokerUnavailable, match="no Sentinel names one") as caught:
        client.models()
    assert "other (by Sentinel: 127.0.0.1:" in str(caught.value)

    async def use_async_client() -> None:
        async with AsyncClient(wrong) as client:
            with pytest.raises(BrokerUnavailable, match="no Sentinel names one") as caught_too:
                await client.models()
        assert str(caught_too.value) == str(caught.value)

    asyncio.run(use_async_client())
    for secret in (PASSWORD, SENTINEL_PASSWORD):
        assert secret not in str(caught.value)


def test_a_sentinel_that_does_not_answer_is_skipped(group: Group) -> None:
    settings = Settings(redis_url=group.url.replace(f":{group.sentinels[0]}", f":{free_port()}"))
    with Client(settings=settings, check=False) as client:
        started_at = time.monotonic()
        client.submit(MODEL, [1, 0, 0])
        assert time.monotonic() - started_at < settings.connect_timeout
    with create_celery_app(settings) as app:
        app.send_task(TASK, args=[MODEL, [[5, 0, 0]]], queue=f"predict.{MODEL}", ignore_result=True)
        app.backend.client.connection_pool.disconnect()
        close_pools(app)
