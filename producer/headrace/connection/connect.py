"""Pools of connections to Redis, for threads and for asyncio."""

from __future__ import annotations

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

from headrace.connection.bounded import BoundedPool, bound_connections
from headrace.connection.sentinel import AsyncSentinelPool, SentinelPool
from headrace.connection.url import Address, explain_bad_options, parse_address
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
        pool = (
            SentinelPool(address, **options) if address.sentinels else BoundedPool.from_url(address.url, **options)
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
        options["socket_keepalive"] = True
    return options
