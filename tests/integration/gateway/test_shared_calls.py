"""Predictions of concurrent requests share calls of Redis, and wait on one reply channel."""

from __future__ import annotations

import asyncio

import httpx
import redis

from tests.support.gateway import RunningGateway
from tests.support.served_worker import Site

REQUESTS = 60


def test_concurrent_requests_share_submits_and_wait_on_one_channel(gateway: RunningGateway, shared: Site) -> None:
    async def predict_all() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as http:
            path = "/v1/models/doubling:predict"
            await http.post(path, json={"instances": [[1, 0, 0]]})
            with redis.Redis.from_url(shared.url) as server:
                server.config_resetstat()
                # The first call waits, and all requests that arrive meanwhile share the next.
                server.client_pause(1500)
            return await asyncio.gather(
                *(http.post(path, json={"instances": [[number, 0, 0]]}) for number in range(REQUESTS))
            )

    answers = asyncio.run(predict_all())
    assert [answer.json()["predictions"] for answer in answers] == [[2.0 * number] for number in range(REQUESTS)]
    with redis.Redis.from_url(shared.url) as server:
        stats = server.info("commandstats")
    # Each call of the script pushes its jobs with one LPUSH.
    assert stats["cmdstat_lpush"]["calls"] < REQUESTS
    # A wait that takes long, as on a busy machine, subscribes to its job too, together with the others.
    assert stats.get("cmdstat_subscribe", {"calls": 0})["calls"] < REQUESTS / 4
    assert len({answer.json()["id"] for answer in answers}) == REQUESTS
