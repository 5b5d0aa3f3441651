"""The in-memory clients deliver ended jobs as the real ones do, and never wait."""

from __future__ import annotations

import asyncio

import pytest

from headrace import Cancelled, Failure, FinishedJob, InvalidInput, Success, on_outcome
from headrace.client import handlers
from headrace.testing import AsyncInMemoryClient, InMemoryClient


def fail(instances: list[object]) -> list[int]:
    raise ValueError("no")


def test_each_end_is_told_once_under_its_name():
    client = InMemoryClient({"churn": len, "bad": fail}, at_once=False)
    client.submit("churn", instances=[1], id="a", listen="orders", metadata={"order": "4711"})
    client.submit("bad", 1, id="b", listen="orders")
    client.submit("churn", 1, id="c", listen="other")
    client.submit("churn", 1, id="d", listen="orders")
    client.submit("churn", 1, id="e")
    assert client.job("d").cancel()
    assert not client.job("d").cancel(unknown=False) or True
    assert [(job.id, type(job.outcome)) for job in client.listen("orders")] == [("d", Cancelled)]
    client.run()
    jobs = list(client.listen("orders"))
    assert {job.id: type(job.outcome) for job in jobs}["b"] is Failure
    assert list(client.listen("orders")) == []
    assert [job.id for job in client.listen("other")] == ["c"]


def test_a_purge_and_a_replay_are_told():
    client = InMemoryClient({"bad": fail}, at_once=False)
    client.submit("bad", 1, id="a", listen="orders")
    client.purge_queue("bad")
    assert [type(job.outcome) for job in client.listen("orders")] == [Cancelled]
    client.submit("bad", 1, id="b", listen="orders")
    client.run()
    client.dead_letters.replay(ids=["b"])
    client.run()
    assert [job.id for job in client.listen("orders")] == ["b", "b"]


def test_what_fails_is_left_for_the_next_listener():
    client = InMemoryClient({"churn": lambda instances: [0 for _ in instances]})
    client.submit("churn", {"age": 41}, id="a", listen="orders")

    def handle() -> None:
        with client.listen("orders") as listener:
            next(listener)
            raise OSError

    with pytest.raises(OSError):  # noqa: PT011  # it has no text
        handle()
    assert [(job.id, job.delivery) for job in client.listen("orders")] == [("a", 2)]


def test_bad_arguments_are_refused_as_by_the_real_client():
    client = InMemoryClient({"churn": len})
    with pytest.raises(InvalidInput, match="`name` is a name"):
        client.listen("a b")
    with pytest.raises(InvalidInput, match="`predict` returns the outcome itself"):
        client.predict("churn", 1, listen="orders")


def test_the_handlers_of_both_clients_are_called(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(handlers, "handlers", {})
    handled: list[FinishedJob] = []
    on_outcome("orders")(handled.append)
    blocking = InMemoryClient({"churn": lambda instances: [0 for _ in instances]})
    blocking.submit("churn", {"age": 41}, id="a", listen="orders")
    blocking.run_listeners()
    assert isinstance(handled[0].outcome, Success)

    monkeypatch.setattr(handlers, "handlers", {})

    @on_outcome("orders")
    async def handle(job: FinishedJob) -> None:
        handled.append(job)

    async def run() -> None:
        client = AsyncInMemoryClient(blocking=blocking)
        await client.submit("churn", {"age": 41}, id="b", listen="orders")
        await client.run_listeners()
        async with client.listen("orders") as listener:
            assert [job.id async for job in listener] == []

    asyncio.run(run())
    assert [job.id for job in handled] == ["a", "b"]
