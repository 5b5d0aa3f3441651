"""The client of the tests of dead letters."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from headrace import Client
from headrace.catalog.published import publish_contract
from headrace.wire.keys import Keys
from tests.support.answering_worker import CHURN


@pytest.fixture
def client(redis_url: str, server: redis.Redis) -> Iterator[Client]:
    """Connect to a Redis that has a contract of `churn` and no worker."""
    publish_contract(server, Keys(), CHURN)
    with Client(redis_url) as client:
        yield client
