"""A script that uses the real clients, and passes them to the service."""

from __future__ import annotations

import asyncio
from typing import assert_type

from service import Scores, score_async

from headrace import AsyncClient, AsyncJobHandle, Client, JobHandle, Prediction


def run_blocking(url: str) -> None:
    """Score customers with the blocking client."""
    with Client(url) as client:
        Scores(client, {"version": "canary", "expires": 60}).score(41)
        for job in client.as_completed(client.submit_many("churn", [{"age": 1}])):
            assert_type(job, JobHandle)
            assert_type(job.result(), Prediction)
        client.forget([client.job("a")])


async def run_async(url: str) -> None:
    """Score customers with the asyncio client."""
    await score_async(AsyncClient(url), 41)
    async with AsyncClient(url) as client:
        async for job in client.as_completed([await client.submit("churn", {"age": 1})]):
            assert_type(job, AsyncJobHandle)


if __name__ == "__main__":
    run_blocking("redis://127.0.0.1:6379/0")
    asyncio.run(run_async("redis://127.0.0.1:6379/0"))
