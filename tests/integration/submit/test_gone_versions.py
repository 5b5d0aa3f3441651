"""Cached aliases whose version is gone, or that lack a new one: they are read again before a job is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
import redis

from headrace import UnknownModel
from headrace.catalog.aliases import Alias, move_alias
from headrace.catalog.published import ContractCache, publish_contract
from headrace.connection.commands import execute, run
from headrace.submit.options import SubmitOptions
from headrace.submit.routing import Router
from headrace.wire.keys import Keys
from tests.support.answering_worker import CHURN

KEYS = Keys()
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class CachingClient:
    """The router of a client, with the requests that it sent."""

    def __init__(self, server: redis.Redis) -> None:
        self.requests: list[Any] = []
        self._server, self._contracts = server, ContractCache(KEYS, ttl=60)
        self._router = Router(self._contracts, check=True)
        run(self._send, self._contracts.read_aliases("churn", NOW.timestamp()))

    def route(self, version: str | None = None) -> str | None:
        """Return the version that a job runs on."""
        chosen, _ = run(self._send, self._router.route(_options(version), "a", [{"age": 41}], NOW))
        return chosen

    def route_many(self) -> list[str | None]:
        """Return the version that each of two jobs runs on."""
        rows = [{"age": 41}, {"age": 42}]
        groups = run(self._send, self._router.route_many(_options(None), ["a", "b"], rows, 0, NOW))
        return [group.version for group in groups for _ in group.indexes]

    def _send(self, request: Any) -> Any:
        self.requests.append(request)
        return execute(self._server, request)


def _options(version: str | None) -> SubmitOptions:
    return SubmitOptions(
        model="churn",
        version=version,
        method=None,
        priority=3,
        expires=None,
        eta=None,
        metadata=None,
        durable=False,
    )


@pytest.fixture
def client(server: redis.Redis) -> CachingClient:
    """A client with cached aliases: production is version 3, whose contract it has not read."""
    _publish(server, "3")
    _move(server, "production", None, "3")
    return CachingClient(server)


def _publish(server: redis.Redis, version: str) -> None:
    publish_contract(server, KEYS, msgspec.structs.replace(CHURN, version=version))


def _move(server: redis.Redis, alias: str, before: str | None, after: str) -> None:
    former = None if before is None else Alias(version=before)
    assert execute(server, move_alias(KEYS, "churn", alias, former, Alias(version=after), by="a test", reason=""))


def _replace_version_3(server: redis.Redis) -> None:
    _publish(server, "4")
    _move(server, "production", "3", "4")
    server.hdel(KEYS.contracts("churn"), "3")


def test_a_job_whose_cached_version_is_gone_runs_on_the_one_that_serves_now(
    client: CachingClient, server: redis.Redis
) -> None:
    _replace_version_3(server)
    assert client.route() == "4"


def test_all_jobs_of_a_call_run_on_the_version_that_serves_now(client: CachingClient, server: redis.Redis) -> None:
    _replace_version_3(server)
    assert client.route_many() == ["4", "4"]


def test_an_alias_that_is_newer_than_the_cached_ones_is_found(client: CachingClient, server: redis.Redis) -> None:
    _move(server, "staging", None, "3")
    assert client.route("staging") == "3"


def test_a_version_that_is_gone_and_still_serves_is_refused_after_one_more_look(
    client: CachingClient, server: redis.Redis
) -> None:
    server.hdel(KEYS.contracts("churn"), "3")
    _publish(server, "4")
    client.requests.clear()
    with pytest.raises(UnknownModel, match="model 'churn' has no version '3'; it has 4"):
        client.route()
    # The contract, the versions that there are, and the aliases.
    assert len(client.requests) == 3


def test_a_version_that_a_caller_names_is_refused_without_a_look_at_the_aliases(
    client: CachingClient, server: redis.Redis
) -> None:
    client.requests.clear()
    with pytest.raises(UnknownModel, match="model 'churn' has no version '7'; it has 3"):
        client.route("7")
    assert len(client.requests) == 2
