"""Pools of connections to Redis, for threads and for asyncio."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from queue import Empty, Queue
from typing import Any
from urllib.parse import urlsplit

import redis
import redis.asyncio
from redis import exceptions
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff
from redis.driver_info import DriverInfo
from redis.retry import Retry

from headrace.connection.bounded import bound_connections
from headrace.connection.bounded_pool import BoundedPool
from headrace.connection.keepalive import KEEPALIVE_OPTIONS
from headrace.connection.sentinel import AsyncSentinelPool, SentinelPool
from headrace.connection.url import Address, check_cluster_prefix, explain_bad_options, parse_address
from headrace.settings import Settings

#: How often a command is repeated when its connection breaks. Every command of Headrace may be repeated; clients
#: pass 0 and repeat theirs for longer, see `headrace.connection.retry`.
_RETRIES = 2
#: Seconds between the repetitions: the first and the longest pause.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 0.5
#: A connection that was idle for this many seconds is tested with PING before it is used.
_HEALTH_CHECK_SECONDS = 30

#: Most connections of one client (`max_connections` in the URL). Another caller waits until one is free.
_MAX_CONNECTIONS = 50

#: The client's name and version for CLIENT SETINFO. redis-py would read package metadata for each connection.
_DRIVER = DriverInfo(lib_version=redis.__version__)


def connect(settings: Settings, *, retries: int = _RETRIES) -> redis.Redis:
    """Create a client with a pool of connections, none of them opened yet. Replies are bytes.

    The client is safe for threads and after fork. Raises SettingError for a URL that cannot be used.
    """
    address = parse_address(settings.redis_url)
    retry = Retry(ExponentialWithJitterBackoff(cap=_LONGEST_PAUSE, base=_FIRST_PAUSE), retries)
    options = _pool_options(settings, address) | {"retry": retry}
    with explain_bad_options(address):
        if address.nodes:
            pool = BoundedPool(  # type: ignore[no-untyped-call]  # redis-py has no type for it
                **_cluster_options(settings, address, options)
            )
        else:
            pool = (
                SentinelPool(address, **options)
                if address.sentinels
                else BoundedPool.from_url(address.url, **options)
            )
            bound_connections(pool)
        pool.connection_class(**pool.connection_kwargs)
    return redis.Redis.from_pool(pool)


def connect_async(settings: Settings, *, retries: int = _RETRIES) -> redis.asyncio.Redis:
    """Create a client as `connect`, for asyncio. The caller limits the time of its commands, by `asyncio.timeout`.

    redis-py would limit each step of a command again, with a task for each.
    """
    address = parse_address(settings.redis_url)
    retry = AsyncRetry(ExponentialWithJitterBackoff(cap=_LONGEST_PAUSE, base=_FIRST_PAUSE), retries)
    options = _pool_options(settings, address) | {"retry": retry, "socket_timeout": None}
    with explain_bad_options(address):
        if address.nodes:
            pool = redis.asyncio.BlockingConnectionPool(
                **_cluster_options(settings, address, options, is_async=True)
            )
        else:
            pool = (
                AsyncSentinelPool(address, **options)
                if address.sentinels
                else redis.asyncio.BlockingConnectionPool.from_url(address.url, **options)
            )
            bound_connections(pool)
        pool.connection_class(**pool.connection_kwargs)
    return redis.asyncio.Redis.from_pool(pool)


def close_idle(client: redis.Redis) -> None:
    """Close the idle connections: after one was found broken, the others may be broken too. Safe for threads."""
    pool: Any = client.connection_pool
    idle: Queue[Any] = pool.pool
    connections = []
    # Connections leave the pool before they are closed: redis-py's own method may close one in use by a thread.
    with suppress(Empty):
        while True:
            connections.append(idle.get_nowait())
    for connection in reversed(connections):
        if connection is not None:
            connection.disconnect()
        idle.put_nowait(connection)


async def close_idle_async(client: redis.asyncio.Redis) -> None:
    """Close the idle connections, for asyncio. The end of a TLS session is not waited for."""
    pool: Any = client.connection_pool
    for connection in list(pool._get_free_connections()):  # noqa: SLF001  # redis-py's own would wait
        with suppress(exceptions.RedisError, OSError):
            await connection.disconnect(nowait=True)


def connect_to_primaries(settings: Settings) -> Iterator[redis.Redis]:
    """Yield a client of each server that takes writes: of each primary of a cluster, else of the one server.

    Each is closed when the next is asked for. Raises RedisError.
    """
    with connect(settings) as client:
        address = parse_address(settings.redis_url)
        if not address.nodes:
            yield client
            return
        from headrace.connection.slots import parse_primaries

        reply = client.execute_command("CLUSTER SLOTS")
        primaries = parse_primaries(reply, client.connection_pool.connection_kwargs["slot"].known_primary)
    for node in primaries:
        options = {**_pool_options(settings, address), **address.options, "host": node.host, "port": node.port}
        pool = BoundedPool(**options)  # type: ignore[no-untyped-call]  # as above
        with redis.Redis.from_pool(pool) as client:
            yield client


def _cluster_options(
    settings: Settings, address: Address, options: dict[str, Any], *, is_async: bool = False
) -> dict[str, Any]:
    """Return the options of a pool of connections to the node of a cluster that serves the key prefix."""
    # A cluster is rare, and its code need not be loaded for other servers.
    from headrace.connection import cluster
    from headrace.connection.slots import SlotPrimary

    classes = (
        (cluster.AsyncClusterConnection, cluster.AsyncClusterTLSConnection)
        if is_async
        else (cluster.ClusterConnection, cluster.ClusterTLSConnection)
    )
    check_cluster_prefix(settings.key_prefix)
    located = {"host", "port", "connection_class"}
    url_options = {name: value for name, value in address.options.items() if name not in located}
    slot = SlotPrimary(address.nodes, settings.key_prefix)
    return {**options, **url_options, "slot": slot, "connection_class": classes[bool(address.tls)]}


def _pool_options(settings: Settings, address: Address) -> dict[str, Any]:
    options: dict[str, Any] = {
        "socket_connect_timeout": settings.connect_timeout,
        "socket_timeout": settings.command_timeout,
        "health_check_interval": _HEALTH_CHECK_SECONDS,
        "max_connections": _MAX_CONNECTIONS,
        "timeout": settings.command_timeout,
        # With RESP2, messages on channels are plain replies, and the handshake is one step shorter.
        "protocol": 2,
        "driver_info": _DRIVER,
    }
    if urlsplit(address.url).scheme != "unix":
        options |= {"socket_keepalive": True, "socket_keepalive_options": KEEPALIVE_OPTIONS}
    return options
