"""The asyncio in-memory client has the methods and the answers of the blocking one."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from headrace import AsyncClient, AsyncJobHandle, AsyncRunHandle, JobFailed, ResultTimeout
from headrace.client import AsyncDeadLetters
from headrace.testing import (
    AsyncInMemoryClient,
    AsyncInMemoryDeadLetters,
    AsyncInMemoryJob,
    AsyncInMemoryRun,
    InMemoryClient,
)


def over_40(instances: list[Any]) -> list[int]:
    if any(instance["age"] > 150 for instance in instances):
        raise ValueError("nobody is that old")
    return [int(instance["age"] > 40) for instance in instances]


@pytest.mark.parametrize(
    ("real", "memory"),
    [
        (AsyncClient, AsyncInMemoryClient),
        (AsyncJobHandle, AsyncInMemoryJob),
        (AsyncRunHandle, AsyncInMemoryRun),
        (AsyncDeadLetters, AsyncInMemoryDeadLetters),
    ],
)
def test_every_public_method_exists_with_its_parameters_and_is_awaited_alike(real: type, memory: type):
    for name, method in inspect.getmembers(real, inspect.isfunction):
        if name.startswith("_") or name == "set_outcome":
            continue
        other = getattr(memory, name)
        assert list(inspect.signature(other).parameters) == list(inspect.signature(method).parameters), name
        assert inspect.iscoroutinefunction(other) == inspect.iscoroutinefunction(method), name
        assert inspect.isasyncgenfunction(other) == inspect.isasyncgenfunction(method), name


async def test_jobs_are_submitted_completed_and_forgotten():
    async with AsyncInMemoryClient({"churn": over_40}) as client:
        assert (await client.predict("churn", {"age": 41})).prediction == 1
        job = await client.submit("churn", {"age": 1}, id="a")
        assert (await job.status(), await job.done(), (await job.result()).prediction) == ("success", True, 0)
        assert not await job.cancel()
        jobs = await client.submit_many("churn", [{"age": age} for age in (1, 50)])
        completed = [job.id async for job in client.as_completed(jobs, timeout=1, forget=True)]
        assert completed == [job.id for job in jobs]
        assert [await client.job(name).status() for name in completed] == ["unknown", "unknown"]
    assert [job.id for job in client.submitted][1:] == ["a", *completed]


async def test_as_completed_yields_the_finished_jobs_then_times_out():
    client = AsyncInMemoryClient({"churn": over_40}, at_once=False)
    first = await client.submit("churn", {"age": 1})
    assert client.run() == 1
    second = await client.submit("churn", {"age": 2})
    completed = client.as_completed([second, first])
    assert (await anext(completed)).id == first.id
    with pytest.raises(ResultTimeout):
        await anext(completed)


async def test_failures_are_dead_letters():
    client = AsyncInMemoryClient({"churn": over_40})
    with pytest.raises(JobFailed, match="nobody is that old"):
        await client.predict("churn", {"age": 200}, id="a")
    assert [letter.id async for letter in client.dead_letters.list()] == ["a"]
    assert (await client.dead_letters.count()).letters == 1
    assert (await client.dead_letters.show("a")).reason == "permanent"
    assert [group.count for group in await client.dead_letters.groups()] == [1]
    assert (await client.dead_letters.replay(ids=["a"])).done == 1
    assert [letter.id async for letter in client.dead_letters.export()] == ["a"], "it failed again"
    assert (await client.dead_letters.purge(ids=["a"])).done == 1


async def test_the_rest_of_the_methods_answer_as_the_blocking_client():
    client = AsyncInMemoryClient({"churn": over_40})
    assert await client.models() == ["churn"]
    assert await client.accepted_columns("churn") == {"arrow", "json"}
    assert (await client.pause("churn", reason="x")).reason == "x"
    job = await client.submit("churn", {"age": 1})
    assert [depth.waiting for depth in await client.queues()] == [1]
    assert (await client.purge_queue("churn")).cancelled == 1
    assert (await job.explain()).status == "cancelled"
    assert await client.resume("churn")
    run = await client.bulk("churn", "in:a.parquet", "out:b", name="nightly")
    assert (await run.wait(timeout=1)).state == "success"
    assert [progress.run.name for progress in await client.bulk_runs()] == ["nightly"]
    assert not await client.bulk_run("nightly").cancel()


async def test_a_blocking_client_may_share_its_jobs():
    blocking = InMemoryClient({"churn": over_40})
    client = AsyncInMemoryClient(blocking=blocking)
    await client.submit("churn", {"age": 41}, id="a")
    assert blocking.job("a").result().prediction == 1
