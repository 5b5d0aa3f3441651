"""A timeout that is no number of seconds is refused before anything is sent, wherever a call takes one."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import AsyncClient, Client, InvalidInput, Settings
from headrace.batch import predict_file, predict_rows
from headrace.client.common import check_timeout, resolve_settings
from headrace.testing import InMemoryClient

AGE = {"age": 41}

#: Each value that is no timeout, with the start of what its error says.
INVALID: list[tuple[Any, str]] = [
    ("5", r"`timeout` is a number of seconds, or None for no limit; got a str"),
    (True, r"`timeout` is a number of seconds, or None for no limit; got a bool"),
    (-1, r"`timeout` is negative: -1 s"),
    (math.nan, r"`timeout` is nan; it is a finite number"),
    (math.inf, r"`timeout` is inf; it is a finite number"),
    (1e10, r"`timeout` is over a year; its unit is seconds"),
]

#: Each call of a client that takes a timeout.
CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "predict": lambda client, timeout: client.predict("churn", AGE, timeout=timeout),
    "predict with an id": lambda client, timeout: client.predict("churn", AGE, id="a", timeout=timeout),
    "as_completed": lambda client, timeout: client.as_completed([client.job("a")], timeout),
    "result": lambda client, timeout: client.job("a").result(timeout),
    "outcome": lambda client, timeout: client.job("a").outcome(timeout),
    "cancel": lambda client, timeout: client.job("a").cancel(timeout),
    "run.wait": lambda client, timeout: client.bulk_run("a").wait(timeout),
    "submit": lambda client, timeout: client.submit("churn", AGE, timeout=timeout),
    "durable submit": lambda client, timeout: client.submit("churn", AGE, durable=True, timeout=timeout),
    "submit_many": lambda client, timeout: client.submit_many("churn", [AGE], timeout=timeout),
    "forget": lambda client, timeout: client.forget([client.job("a")], timeout=timeout),
    "status": lambda client, timeout: client.job("a").status(timeout),
    "done": lambda client, timeout: client.job("a").done(timeout),
    "explain": lambda client, timeout: client.job("a").explain(timeout),
    "contract": lambda client, timeout: client.contract("churn", timeout=timeout),
    "accepted_columns": lambda client, timeout: client.accepted_columns("churn", timeout=timeout),
    "models": lambda client, timeout: client.models(timeout=timeout),
    "queues": lambda client, timeout: client.queues(timeout=timeout),
    "pause": lambda client, timeout: client.pause("churn", timeout=timeout),
    "resume": lambda client, timeout: client.resume("churn", timeout=timeout),
    "bulk": lambda client, timeout: client.bulk("churn", "in:a.parquet", "out:b", timeout=timeout),
    "bulk_runs": lambda client, timeout: client.bulk_runs(timeout=timeout),
    "run.status": lambda client, timeout: client.bulk_run("a").status(timeout),
    "run.cancel": lambda client, timeout: client.bulk_run("a").cancel(timeout),
    "run.resume": lambda client, timeout: client.bulk_run("a").resume(timeout),
    "run.failures": lambda client, timeout: client.bulk_run("a").failures(timeout),
    "run.explain": lambda client, timeout: client.bulk_run("a").explain(timeout),
}

#: A port where nothing listens: a call that sent something would raise BrokerUnavailable.
NOWHERE = "redis://127.0.0.1:1"


@pytest.fixture
def client() -> Iterator[Client]:
    with Client(NOWHERE, check=False) as client:
        yield client


@pytest.mark.parametrize(("timeout", "message"), INVALID)
@pytest.mark.parametrize("name", CALLS)
def test_a_client_refuses_what_is_no_timeout(client: Client, name: str, timeout: Any, message: str):
    with pytest.raises(InvalidInput, match=message):
        CALLS[name](client, timeout)


@pytest.mark.parametrize("name", CALLS)
def test_an_asyncio_client_refuses_what_is_no_timeout(name: str):
    async def call() -> None:
        async with AsyncClient(NOWHERE, check=False) as client:
            await CALLS[name](client, "5")

    with pytest.raises(InvalidInput, match="`timeout` is a number"):
        asyncio.run(call())


@pytest.mark.parametrize("name", CALLS)
def test_the_in_memory_client_refuses_it_too_and_runs_nothing(name: str):
    fake = InMemoryClient({"churn": lambda instances: [0 for _ in instances]})
    with pytest.raises(InvalidInput, match="negative"):
        CALLS[name](fake, -1)
    assert fake.submitted == []


def test_a_batch_refuses_it_before_it_reads_its_file(client: Client, tmp_path: Path):
    with pytest.raises(InvalidInput, match="negative"):
        predict_rows(client, "churn", [AGE], timeout=-1)
    with pytest.raises(InvalidInput, match="got a str"):
        predict_file(client, "churn", tmp_path / "missing.csv", tmp_path / "out.csv", timeout="5")


def test_a_timeout_may_be_any_number_0_or_none():
    assert [check_timeout(value) for value in (None, 0, 5, 0.5, np.float32(2), np.int64(3))] == [
        None,
        0.0,
        5.0,
        0.5,
        2.0,
        3.0,
    ]


@pytest.mark.parametrize("name", ["timeout", "connect_timeout"])
@pytest.mark.parametrize("value", [0, -1, "5", math.nan])
def test_a_client_refuses_a_timeout_of_its_own_that_is_not_above_0(name: str, value: Any):
    with pytest.raises(InvalidInput, match=f"^`{name}`"):
        Client(NOWHERE, **{name: value})


def test_the_timeouts_of_a_client_replace_those_of_its_settings():
    settings = resolve_settings(NOWHERE, Settings(), timeout=2, connect_timeout=0.5)
    assert (settings.command_timeout, settings.connect_timeout, settings.redis_url) == (2.0, 0.5, NOWHERE)
    assert resolve_settings(None, settings) is settings
