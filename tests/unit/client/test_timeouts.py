"""A timeout that is no number of seconds is refused before anything is sent, wherever a call takes one."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import AsyncClient, Client, InvalidInput
from headrace.batch import predict_file, predict_rows
from headrace.client.common import check_timeout
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
