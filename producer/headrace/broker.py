"""Connections to Redis, and what its errors mean to a person."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import redis
import redis.asyncio
from redis import exceptions
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

from headrace.errors import BrokerUnavailable, SettingError
from headrace.queues import PRIORITY_STEPS
from headrace.settings import Settings

if TYPE_CHECKING:
    from celery import Celery

#: A command is sent this many times more when its connection breaks. Every command of Headrace may be
#: repeated: a job's record makes a repeated submit one job, and the first outcome wins.
_RETRIES = 2
#: Seconds between those, at first and at the most.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 0.5
#: A connection unused for this many seconds is tried with a PING before it is trusted again.
_HEALTH_CHECK = 30

#: Connections one client opens at the most (`max_connections` in the URL); who needs one more waits for it.
_CONNECTIONS = 50

_SCHEMES = ("redis", "rediss", "unix")


def connect(settings: Settings) -> redis.Redis:
    """A pool of connections, bytes in and bytes out, safe for threads and after fork. Opens none yet."""
    retry = Retry(ExponentialWithJitterBackoff(cap=_LONGEST_PAUSE, base=_FIRST_PAUSE), _RETRIES)
    with _explained(settings):
        pool = redis.BlockingConnectionPool.from_url(settings.redis_url, retry=retry, **_options(settings))
        pool.connection_class(**pool.connection_kwargs)
    return redis.Redis.from_pool(pool)


def connect_async(settings: Settings) -> redis.asyncio.Redis:
    """`connect`, for asyncio."""
    retry = AsyncRetry(ExponentialWithJitterBackoff(cap=_LONGEST_PAUSE, base=_FIRST_PAUSE), _RETRIES)
    with _explained(settings):
        pool = redis.asyncio.BlockingConnectionPool.from_url(settings.redis_url, retry=retry, **_options(settings))
        pool.connection_class(**pool.connection_kwargs)
    return redis.asyncio.Redis.from_pool(pool)


@contextmanager
def _explained(settings: Settings) -> Iterator[None]:
    """SettingError for a URL that cannot be, and for options in it that redis-py does not take."""
    url = _checked(settings.redis_url)
    try:
        yield
    except (TypeError, ValueError, exceptions.RedisError):
        names = ", ".join(dict(parse_qsl(urlsplit(url).query)))
        raise SettingError(
            f"the Redis URL has an option redis-py does not take, among {names}; redis.Redis lists those it does"
        ) from None


def _options(settings: Settings) -> dict[str, Any]:
    options: dict[str, Any] = {
        "socket_connect_timeout": settings.connect_timeout,
        "socket_timeout": settings.command_timeout,
        "health_check_interval": _HEALTH_CHECK,
        "max_connections": _CONNECTIONS,
        "timeout": settings.command_timeout,
        # Announcements come as plain replies, and the handshake is one step shorter than RESP3's.
        "protocol": 2,
    }
    if urlsplit(settings.redis_url).scheme != "unix":
        options["socket_keepalive"] = True
    return options


def _checked(url: str) -> str:
    """The URL, or SettingError. Says nothing of the URL but its scheme: the rest may hold a password."""
    if not isinstance(url, str):
        raise SettingError(f"the Redis URL is a text, got a {type(url).__name__}")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise SettingError(
            "the Redis URL has no usable host and port; in a password, write / as %2F, # as %23, @ as %40"
        ) from None
    if parts.scheme not in _SCHEMES:
        raise SettingError(
            f"the Redis URL must begin with redis://, rediss:// (TLS) or unix://, not {parts.scheme[:20]!r}"
        )
    if parts.fragment or "@" in parts.path + parts.query:
        raise SettingError("the Redis URL has a '#' or '@' where none belongs; in a password, write %23 and %40")
    if parts.scheme == "unix" and not parts.path:
        raise SettingError("the Redis URL names no socket; write unix:///path/to/redis.sock?db=0")
    database = parts.path.strip("/") if parts.scheme != "unix" else dict(parse_qsl(parts.query)).get("db", "")
    if database and not (database.isascii() and database.isdigit()):
        raise SettingError(
            "the Redis URL ends in something that is no database number; write redis://HOST:6379/0, and in a "
            "password / as %2F, # as %23, @ as %40"
        )
    if parts.scheme != "unix" and not host and parts.netloc:
        raise SettingError("the Redis URL has no host; write redis://HOST:6379/0")
    return url


def where(settings: Settings) -> str:
    """Which Redis, for messages: host and port, or the path of the socket."""
    parts = urlsplit(settings.redis_url)
    if parts.scheme == "unix":
        return parts.path
    return f"{parts.hostname or 'localhost'}:{parts.port or 6379}"


@contextmanager
def guarded(settings: Settings) -> Iterator[None]:
    """Errors of Redis leave the block as BrokerUnavailable."""
    try:
        yield
    except exceptions.RedisError as error:
        raise unavailable(error, settings) from error


def is_lasting(error: exceptions.RedisError) -> bool:
    """Whether trying again helps nobody: Redis refuses us, it is not away."""
    return isinstance(
        error, exceptions.AuthenticationError | exceptions.AuthorizationError | exceptions.NoPermissionError
    )


def unavailable(error: exceptions.RedisError, settings: Settings) -> BrokerUnavailable:
    """What an error of Redis means, where, and what to do. Never tells the password."""
    meaning = _meaning(error)
    if isinstance(error, exceptions.TimeoutError) and urlsplit(settings.redis_url).scheme == "rediss":
        # A plain Redis takes a TLS greeting for the beginning of a command, and waits for the rest.
        meaning = f"cannot be reached over TLS, or {meaning} Does the port speak TLS?"
    return BrokerUnavailable(f"Redis at {where(settings)} {meaning}")


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
        case exceptions.ReadOnlyError():
            return "is a read-only replica; point HEADRACE_REDIS_URL at the primary"
        case exceptions.TimeoutError():
            return "does not answer in time; is it overloaded, or is something between dropping packets?"
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
    if "READONLY" in text or "read only replica" in text:
        return "is a read-only replica; point HEADRACE_REDIS_URL at the primary"
    if "unauthenticated" in text:
        return _REFUSED
    if "NOPERM" in text or "ACL" in text:
        return f"does not permit this user a command, key or channel: {text}; see its ACL"
    if "MISCONF" in text:
        return f"refuses writes because it cannot save them: {text}"
    if "WRONGTYPE" in text:
        return f"holds something else under a name of Headrace's: {text}; set HEADRACE_KEY_PREFIX to be apart"
    return f"refused a command: {text}"


def _tidy(text: str) -> str:
    """redis-py's words on one line, without the full stop."""
    return " ".join(text.split()).rstrip(".")


def celery_app(settings: Settings) -> Celery:
    """A plain Celery app on the same Redis: sends and reads what Headrace does, in Celery's own ways."""
    from celery import Celery

    url = _celery_url(_checked(settings.redis_url))
    app = Celery("headrace", broker=url, backend=url, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        result_serializer="json",
        accept_content=["json"],
        result_accept_content=["json"],
        result_expires=settings.result_ttl,
        broker_connection_retry_on_startup=True,
        broker_transport_options={
            "global_keyprefix": settings.key_prefix,
            "priority_steps": list(PRIORITY_STEPS),
            "queue_order_strategy": "priority",
            "socket_connect_timeout": settings.connect_timeout,
        },
        result_backend_transport_options=(
            {"global_keyprefix": settings.key_prefix} if settings.key_prefix else {}
        ),
    )
    return app


def _celery_url(url: str) -> str:
    """The same place in the words of kombu."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    if parts.scheme == "unix":
        query["virtual_host"] = query.pop("db", "0")
        return f"redis+socket://{parts.netloc}{parts.path}?{urlencode(query)}"
    if parts.scheme == "rediss":
        query.setdefault("ssl_cert_reqs", "required")
        return parts._replace(query=urlencode(query)).geturl()
    return url
