"""Fixtures of the tests that run the operations on leases: on every Redis, with and without a key prefix."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.transport.leases import Leases
from tests.support.functions import load_functions
from tests.support.redis_servers import SERVERS, find_server

#: Each Redis without functions, where scripts run by EVALSHA, and three servers with functions. On Valkey, scripts
#: run by EVALSHA in other tests that are parametrised by server.
WITHOUT_FUNCTIONS = [name for name in SERVERS if name != "valkey"]
WITH_FUNCTIONS = [f"{name} with functions" for name in ("path", "falkordb", "valkey")]


@pytest.fixture(scope="module", params=[*WITHOUT_FUNCTIONS, *WITH_FUNCTIONS])
def any_redis(request: pytest.FixtureRequest) -> Iterator[EmbeddedRedis]:
    name, _, functions = request.param.partition(" with ")
    with EmbeddedRedis("--appendfsync", "no", server=find_server(name)) as running:
        if functions:
            with redis.Redis.from_url(running.url) as admin:
                load_functions(admin)
        yield running


@pytest.fixture
def db(any_redis: EmbeddedRedis) -> Iterator[redis.Redis]:
    """Return a client of the empty Redis, which has no scripts."""
    with redis.Redis.from_url(any_redis.url) as client:
        client.flushall()
        client.script_flush()
        yield client


@pytest.fixture(params=["", "{apart}:"])
def keys(request: pytest.FixtureRequest) -> Keys:
    return Keys(request.param)


@pytest.fixture
def leases(db: redis.Redis, keys: Keys) -> Leases:
    return Leases(db, keys)
