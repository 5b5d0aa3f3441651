"""Connections to Redis, and what its errors mean to a person."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import redis
import redis.asyncio
from redis import exceptions
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import MasterNotFoundError as AsyncNoPrimary
from redis.backoff import ExponentialWithJitterBackoff
from redis.driver_info import DriverInfo
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError as NoPrimary

from headrace.connection.sentinel import AsyncSentinelPool, SentinelOptions, SentinelPool
from headrace.connection.url import Address, read_address
from headrace.errors import BrokerUnavailable, SettingError
from headrace.settings import Settings
from headrace.wire.keys import PRIORITY_STEPS

if TYPE_CHECKING:
    from celery import Celery

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
    address = read_address(settings.redis_url)
    retry = Retry(ExponentialWithJitterBackoff(cap=_LONGEST_PAUSE, base=_FIRST_PAUSE), retries)
    options = _options(settings, address) | {"retry": retry}
    with _explained(address):
        pool = (
            SentinelPool(address, **options)
            if address.sentinels
            else redis.BlockingConnectionPool.from_url(address.url, **options)
        )
        pool.connection_class(**pool.connection_kwargs)
    return redis.Redis.from_pool(pool)


def connect_async(settings: Settings, *, retries: int = _RETRIES) -> redis.asyncio.Redis:
    """`connect`, for asyncio."""
    address = read_address(settings.redis_url)
    retry = AsyncRetry(ExponentialWithJitterBackoff(cap=_LONGEST_PAUSE, base=_FIRST_PAUSE), retries)
    options = _options(settings, address) | {"retry": retry}
    with _explained(address):
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


@contextmanager
def _explained(address: Address) -> Iterator[None]:
    """SettingError for options in the URL that redis-py does not take."""
    try:
        yield
    except (TypeError, ValueError, exceptions.RedisError):
        raise SettingError(
            "the Redis URL has an option redis-py does not take, among "
            f"{', '.join(address.option_names)}; redis.Redis lists those it does"
        ) from None


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


def describe_server(settings: Settings) -> str:
    """Which Redis, for messages: host and port, the path of the socket, or the name and its Sentinels."""
    return read_address(settings.redis_url).where


@contextmanager
def translate_errors(settings: Settings) -> Iterator[None]:
    """Errors of Redis leave the block as BrokerUnavailable, with what was noted of them."""
    try:
        yield
    except exceptions.RedisError as error:
        told = unavailable(error, settings)
        for note in getattr(error, "__notes__", ()):
            told.add_note(note)
        raise told from error


def is_permanent(error: exceptions.RedisError) -> bool:
    """Whether trying again helps nobody: Redis refuses us, it is not away."""
    return isinstance(
        error, exceptions.AuthenticationError | exceptions.AuthorizationError | exceptions.NoPermissionError
    )


def is_read_only(error: exceptions.RedisError) -> bool:
    """Whether a replica speaks. Inside a script errors come as text, without a class of their own."""
    text = str(error)
    return isinstance(error, exceptions.ReadOnlyError) or "READONLY" in text or "read only replica" in text


def unavailable(error: exceptions.RedisError, settings: Settings) -> BrokerUnavailable:
    """What an error of Redis means, where, and what to do. Never tells the password."""
    meaning = _meaning(error)
    if isinstance(error, exceptions.TimeoutError) and read_address(settings.redis_url).tls:
        # A plain Redis takes a TLS greeting for the beginning of a command, and waits for the rest.
        meaning = f"cannot be reached over TLS, or {meaning} Does the port speak TLS?"
    return BrokerUnavailable(f"Redis at {describe_server(settings)} {meaning}")


def _meaning(error: exceptions.RedisError) -> str:
    text = str(error)
    match error:
        case exceptions.AuthenticationError() | exceptions.AuthorizationError():
            if "no password" in text or "without any password" in text:
                return "asks for no password but the URL has one; remove it, or set `requirepass` there"
            return (
                "refuses the user or password; check HEADRACE_REDIS_URL (in the URL, `redis://USER:PASSWORD@HOST`)"
            )
        case exceptions.NoPermissionError():
            return f"does not permit this user a command, key or channel: {text}; see its ACL"
        case exceptions.BusyLoadingError():
            return "is still loading its data; try again in a moment"
        case exceptions.OutOfMemoryError():
            return _FULL
        case _ if is_read_only(error):
            return "is a read-only replica; point HEADRACE_REDIS_URL at the primary"
        case exceptions.TimeoutError():
            return "does not answer in time; is it overloaded, or is something between dropping packets?"
        case NoPrimary() | AsyncNoPrimary():
            return "has no primary now: no Sentinel names one that is up; do they run, and is master_name right?"
        case exceptions.ConnectionError():
            return _unreachable(text)
        case exceptions.ResponseError():
            return _refusal(text)
        case _:
            return f"failed: {type(error).__name__}: {text}"


_REFUSED = "refuses the user or password; check HEADRACE_REDIS_URL (in the URL, `redis://USER:PASSWORD@HOST`)"
_FULL = "has no memory left for another job (maxmemory); run more workers, or give it more"


def _unreachable(text: str) -> str:
    if "No connection available" in text:
        return "has not answered the commands under way, and no connection is left for this one"
    if "max number of clients" in text:
        return "has no connection left (maxclients); close some, or raise it"
    if "SSL" in text or "certificate" in text:
        return (
            f"cannot be reached over TLS ({_tidy(text)}); check rediss://, the port, and ssl_ca_certs in the URL"
        )
    return f"cannot be reached ({_tidy(text)}); is it running, and is HEADRACE_REDIS_URL right?"


def _refusal(text: str) -> str:
    # Inside a script these come as text, without a class of their own.
    if "OOM" in text or "maxmemory" in text:
        return _FULL
    if "unauthenticated" in text:
        return _REFUSED
    if "NOPERM" in text or "ACL" in text or "user executing the script" in text:
        return f"does not permit this user a command, key or channel: {text}; see its ACL"
    if "MISCONF" in text:
        return f"refuses writes because it cannot save them: {text}"
    if "NOREPLICAS" in text:
        return (
            "takes no writes while it has too few replicas (min-replicas-to-write); bring them back, or lower it"
        )
    if text.startswith("BUSY "):
        return "runs a script that does not end; SCRIPT KILL ends it, and SLOWLOG GET names it"
    if "WRONGTYPE" in text:
        return f"holds something else under a name of Headrace's: {text}; set HEADRACE_KEY_PREFIX to be apart"
    return f"refused a command: {text}"


def _tidy(text: str) -> str:
    """redis-py's words on one line, without the full stop."""
    return " ".join(text.split()).rstrip(".")


def celery_app(settings: Settings) -> Celery:
    """A plain Celery app on the same Redis: sends and reads what Headrace does, in Celery's own ways."""
    from celery import Celery

    address = read_address(settings.redis_url)
    with _explained(address):
        url, tls = address.celery_url, address.tls
    found: dict[str, Any] = {}
    if address.sentinels:
        found = {"master_name": address.master_name, "sentinel_kwargs": SentinelOptions(address)}
    app = Celery("headrace", broker=url, backend=url, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        result_serializer="json",
        accept_content=["json"],
        result_accept_content=["json"],
        result_expires=settings.result_ttl,
        broker_connection_retry_on_startup=True,
        broker_use_ssl=tls,
        redis_backend_use_ssl=tls,
        broker_transport_options={
            "global_keyprefix": settings.key_prefix,
            "priority_steps": list(PRIORITY_STEPS),
            "queue_order_strategy": "priority",
            "socket_connect_timeout": settings.connect_timeout,
            **found,
        },
        result_backend_transport_options=(
            ({"global_keyprefix": settings.key_prefix} if settings.key_prefix else {}) | found
        ),
    )
    return app
