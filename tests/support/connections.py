"""Redis servers that are reached by TLS, sockets or Sentinels, and checks that Headrace works over them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from flower.utils.broker import Broker
from kombu import pools

from headrace import AsyncClient, Client, JobCancelled, Settings
from headrace.connection.celery import create_celery_app
from headrace.wire.queues import queue_name
from headrace_worker.local.stack import Child
from tests.support.claim_models import SLEEP
from tests.support.waiting import wait_until

MODEL = "doubling"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_server(command: Sequence[str | Path], folder: Path, name: str, client: redis.Redis) -> Iterator[Any]:
    """Run a server process until the block ends. `client` is a client of the server, to wait until it answers."""
    with (folder / f"{name}.log").open("ab") as log, client:
        process = subprocess.Popen(
            [str(argument) for argument in command],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            wait_until(lambda: _answers(client), 15, lambda: (folder / f"{name}.log").read_text()[-2000:])
            yield process
        finally:
            process.kill()
            process.wait()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def exercise_client(settings: Settings) -> None:
    """Use a client in all ways, with and without asyncio. A worker must run."""
    with Client(settings=settings) as client:
        assert client.predict(MODEL, [21, 0, 0], timeout=20).prediction == 42
        jobs = client.submit_many(MODEL, [[n, 0, 0] for n in range(100)])
        predictions = {job.id: job.result(timeout=0).prediction for job in client.as_completed(jobs, timeout=20)}
        assert [predictions[job.id] for job in jobs] == [2 * n for n in range(100)]
        several = client.submit(MODEL, instances=[[n, 0, 0] for n in range(40)], priority=9)
        assert several.result(timeout=20).predictions == [2 * n for n in range(40)]
        delayed = client.submit(MODEL, [1, 0, 0], delay=60)
        assert delayed.cancel()
        with pytest.raises(JobCancelled):
            delayed.result(timeout=5)
        assert client.contract(MODEL).model == MODEL
        assert client.models() == [MODEL]
        assert [depth.model for depth in client.queues()] == [MODEL]

    async def use_async_client() -> None:
        async with AsyncClient(settings=settings) as client:
            assert (await client.predict(MODEL, [4, 0, 0], timeout=20)).prediction == 8
            jobs = await client.submit_many(MODEL, [[n, SLEEP, 0.01] for n in range(20)])
            assert [(await job.result(timeout=20)).prediction for job in jobs] == [2 * n for n in range(20)]

    asyncio.run(use_async_client())


def exercise_celery_app(settings: Settings) -> None:
    """Use a plain Celery app: send a job, read its outcome, control the worker, receive events."""
    with create_celery_app(settings) as app:
        with capture_events(app) as events:
            job = app.send_task("headrace.predict", args=[MODEL, [[5, 0, 0]]], queue=queue_name(MODEL))
            assert job.get(timeout=20)["predictions"] == [10]
            wait_until(lambda: (job.id, "task-succeeded") in events)
        assert app.control.inspect(timeout=5, limit=1).ping()
        app.backend.client.connection_pool.disconnect()
        close_pools(app)


def close_pools(app: Celery[Any]) -> None:
    """Close the connections that kombu keeps for the next app with the same URL, and those of no other app."""
    connection = app.connection_for_write()
    for group in (pools.producers, pools.connections):
        group[connection].force_close_all()
        del group[connection]


@contextmanager
def capture_events(app: Celery[Any]) -> Iterator[list[tuple[str, str]]]:
    """Collect the events of the block, each as the id of its job and its type."""
    events: list[tuple[str, str]] = []
    with app.connection() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": lambda event: events.append(_summarize(event))})

        def listen() -> None:
            for _ in receiver.itercapture(limit=None, timeout=None, wakeup=False):
                pass

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        try:
            wait_until(lambda: events)  # a worker sends a heartbeat every two seconds
            time.sleep(0.6)  # a pool process notices within half a second that somebody receives events
            yield events
        finally:
            receiver.should_stop = True
            listener.join(10)


def _summarize(event: dict[str, Any]) -> tuple[str, str]:
    return event.get("uuid", ""), event["type"]


def count_waiting_in_flower(settings: Settings) -> int:
    """Return the number of waiting jobs on Flower's Broker page."""
    with create_celery_app(settings) as app, app.connection() as connection:
        broker = Broker(
            connection.as_uri(include_password=True),
            broker_options=app.conf.broker_transport_options,
            broker_use_ssl=app.conf.broker_use_ssl,
        )

    async def count() -> int:
        (queue,) = await broker.queues([queue_name(MODEL)])
        if sentinels := getattr(broker.redis.connection_pool, "sentinel_manager", None):
            await sentinels.aclose()  # Flower does not close them
        return int(queue["messages"])

    return asyncio.run(count())


def kill_pool(worker: Child) -> None:
    """Kill the pool processes of a worker."""
    children = Path(f"/proc/{worker.process.pid}/task/{worker.process.pid}/children").read_text().split()
    for pid in children:
        os.kill(int(pid), signal.SIGKILL)
