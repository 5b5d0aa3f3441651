"""Submitting jobs with either client while Redis or the network fails."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import redis

from headrace import AsyncClient, BrokerUnavailable, Client, Settings
from headrace.wire.attempts import decode_queued_message
from headrace.wire.queues import queue_name

AGE = {"age": 41}
QUEUE = queue_name("churn")
ClientName = Literal["Client", "AsyncClient"]
CLIENTS: list[ClientName] = ["Client", "AsyncClient"]


def settings(url: str, seconds: float = 10) -> Settings:
    """Return settings with `seconds` for connecting and for a command."""
    return Settings(redis_url=url, command_timeout=seconds, connect_timeout=seconds)


def count_waiting(admin: redis.Redis) -> Counter[str]:
    """Count the waiting messages of each job id."""
    return Counter(json.loads(message)["headers"]["id"] for message in admin.lrange(QUEUE, 0, -1))


def queued_messages(server: redis.Redis, key: str = QUEUE) -> list[dict[str, Any]]:
    """Return the messages of a list, in the order in which they were pushed."""
    return [json.loads(decode_queued_message(item)[1]) for item in server.lrange(key, 0, -1)[::-1]]


def queued_ids(server: redis.Redis) -> list[str]:
    """Return the ids of the waiting jobs, in the order in which they were pushed."""
    return [message["headers"]["id"] for message in queued_messages(server)]


class Submitter:
    """Submits jobs one after the other with either client, and collects confirmed ids and raised errors."""

    def __init__(self, client: ClientName, settings: Settings) -> None:
        self.confirmed: list[str] = []
        self.raised: list[BrokerUnavailable] = []
        self._client, self._settings = client, settings

    def submit_while(self, condition: Callable[[int], bool], **options: Any) -> None:
        """Submit jobs while the condition holds for the number of jobs so far."""
        if self._client == "AsyncClient":
            asyncio.run(self._submit_async(condition, options))
            return
        with Client(settings=self._settings, check=False) as client:
            count = 0
            while condition(count):
                count += 1
                try:
                    self.confirmed.append(client.submit("churn", AGE, **options).id)
                except BrokerUnavailable as error:
                    self.raised.append(error)

    def submit(self, count: int, **options: Any) -> None:
        """Submit a number of jobs."""
        self.submit_while(lambda submitted: submitted < count, **options)

    async def _submit_async(self, condition: Callable[[int], bool], options: dict[str, Any]) -> None:
        async with AsyncClient(settings=self._settings, check=False) as client:
            count = 0
            while condition(count):
                count += 1
                try:
                    self.confirmed.append((await client.submit("churn", AGE, **options)).id)
                except BrokerUnavailable as error:
                    self.raised.append(error)


def submit_many(client_name: ClientName, settings: Settings, ids: list[str]) -> list[str]:
    """Submit jobs in one call with either client. Return their ids."""

    async def submit_many_async() -> list[str]:
        async with AsyncClient(settings=settings, check=False) as client:
            return [job.id for job in await client.submit_many("churn", [AGE] * len(ids), ids=ids)]

    if client_name == "AsyncClient":
        return asyncio.run(submit_many_async())
    with Client(settings=settings, check=False) as client:
        return [job.id for job in client.submit_many("churn", [AGE] * len(ids), ids=ids)]


@contextmanager
def in_background(*steps: Callable[[], Any], delay: float = 0.0) -> Iterator[None]:
    """Run the steps in a thread while the block runs, after `delay` seconds."""

    def run() -> None:
        time.sleep(delay)
        for step in steps:
            step()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()
