"""The test of the service, without Redis, as its author would write it."""

from __future__ import annotations

import asyncio

from service import Scores, score_async

from headrace import AnyAsyncClient, AnyClient
from headrace.testing import AsyncInMemoryClient, InMemoryClient


def churn(instances: list[dict[str, int]]) -> list[float]:
    """Score a customer, as the model would."""
    if any(instance["age"] > 150 for instance in instances):
        raise ValueError("nobody is that old")
    return [instance["age"] / 100 for instance in instances]


def check_blocking() -> None:
    """Run the blocking service with the in-memory client."""
    fake = InMemoryClient({"churn": churn})
    client: AnyClient = fake
    scores = Scores(client, {"metadata": {"test": "yes"}})
    assert scores.score(41) == 0.41
    assert scores.score(200) is None
    assert sorted(scores.score_all([50, 200]).values()) == ["permanent: nobody is that old", "scored 0.5"]
    assert [job.metadata for job in fake.submitted[:1]] == [{"test": "yes"}]
    assert scores.drop("typo") == (False, client.job("typo").explain())


def check_async() -> None:
    """Run the asyncio service with the in-memory client."""
    client: AnyAsyncClient = AsyncInMemoryClient({"churn": churn})
    assert asyncio.run(score_async(client, 41)) == 0.41


if __name__ == "__main__":
    check_blocking()
    check_async()
