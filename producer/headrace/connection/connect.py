"""Connections to Redis, and what its errors mean to a person."""

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

from headrace.connection.sentinel import AsyncSentinelPool, SentinelPool
from headrace.connection.url import Address, explain_bad_options, parse_address
from headrace.settings import Settings

#: A command is sent this many times more when its connection breaks. Every command of Headrace may be
#: repeated: see `headrace.connection.retry`, by which clients repeat theirs for longer.
_RETRIES = 2
#: Seconds between those, at first and at the most.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 0.5
#: A connection unused for this many seconds is tried with a PING before it is trusted again.
_HEALTH_CHECK = 30

#: Connections one client opens at the most (`max_connections` in the URL); who needs one more waits for it.
_CONNECTIONS = 50

#: What connections say of themselves. Made once: redis-py else reads its package's metadata for each of them.
_DRIVER = DriverInfo(lib_version=redis.__version__)


def connect(settings: Settings, *, retries: int = _RETRIES) -> redis.Redis:
    """A pool of connections, bytes in and bytes out, safe for threads and after fork. Opens none yet."""
    address = parse_address(settings.redis_url)
    retry = Retry(ExponentialWithJitterBackoff(cap=_LONGEST_PAUSE, base=_FIRST_PAUSE), retries)
    options = _options(settings, address) | {"retry": retry}
    with explain_bad_options(address):
        pool = (
            SentinelPool(address, **options)
            if address.sentinels
            else redis.BlockingConnectionPool.from_url(address.url, **options)
        )
        pool.connection_class(**pool.connection_kwargs)
    return redis.Redis.from_pool(pool)


def connect_async(settings: Settings, *, retries: int = _RETRIES) -> redis.asyncio.Redis:
    """`connect`, for asyncio."""
    address = parse_address(settings.redis_url)
    retry = AsyncRetry(ExponentialWithJitterBackoff(cap=_LONGEST_PAUSE, base=_FIRST_PAUSE), retries)
    options = _options(settings, address) | {"retry": retry}
    with explain_bad_options(address):
        pool = (
            AsyncSentinelPool(address, **options)
            if address.sentinels
            else redis.asyncio.BlockingConnectionPool.from_url(address.url, **options)
        )
        pool.connection_class(**pool.connection_kwargs)
    return redis.asyncio.Redis.from_pool(pool)


def close_idle(client: redis.Redis) -> None:
    """Close the connections nobody uses, which may be as dead as one that was found to be. Safe for threads."""
    pool: Any = client.connection_pool
    idle: Queue[Any] = pool.pool
    taken = []
    # Out of the pool first: redis-py's own way closes one that another thread has just taken.
    with suppress(Empty):
        while True:
            taken.append(idle.get_nowait())
    for connection in reversed(taken):
        if connection is not None:
            connection.disconnect()
        idle.put_nowait(connection)


async def close_idle_async(client: redis.asyncio.Redis) -> None:
    """`drop_idle`, for asyncio."""
    with suppress(exceptions.RedisError, OSError):
        await client.connection_pool.disconnect(inuse_connections=False)


def _options(settings: Settings, address: Address) -> dict[str, Any]:
    options: dict[str, Any] = {
        "socket_connect_timeout": settings.connect_timeout,
        "socket_timeout": settings.command_timeout,
        "health_check_interval": _HEALTH_CHECK,
        "max_connections": _CONNECTIONS,
        "timeout": settings.command_timeout,
        # Announcements come as plain replies, and the handshake is one step shorter than RESP3's.
        "protocol": 2,
        "driver_info": _DRIVER,
    }
    if urlsplit(address.url).scheme != "unix":
        options["socket_keepalive"] = True
    return options
