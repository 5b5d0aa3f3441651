"""The errors of Redis: which of them pass, and what each means to a person."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from redis import exceptions
from redis.asyncio.sentinel import MasterNotFoundError as AsyncNoPrimary
from redis.sentinel import MasterNotFoundError as NoPrimary

from headrace.connection.url import describe_server, parse_address
from headrace.errors import BrokerUnavailable
from headrace.settings import Settings

#: What comes of a server that is away, starts, or hands over to another.
_PASSING = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ClusterDownError,
    exceptions.TryAgainError,
)


@contextmanager
def translate_errors(settings: Settings) -> Iterator[None]:
    """Errors of Redis leave the block as BrokerUnavailable, with what was noted of them."""
    try:
        yield
    except exceptions.RedisError as error:
        told = translate_error(error, settings)
        for note in getattr(error, "__notes__", ()):
            told.add_note(note)
        raise told from error


def is_permanent(error: exceptions.RedisError) -> bool:
    """Whether trying again helps nobody: Redis refuses us, it is not away."""
    return isinstance(
        error, exceptions.AuthenticationError | exceptions.AuthorizationError | exceptions.NoPermissionError
    )


def is_read_only(error: BaseException) -> bool:
    """Whether a replica speaks. Inside a script errors come as text, without a class of their own."""
    text = str(error)
    return isinstance(error, exceptions.ReadOnlyError) or "READONLY" in text or "read only replica" in text


def translate_error(error: exceptions.RedisError, settings: Settings) -> BrokerUnavailable:
    """What an error of Redis means, where, and what to do. Never tells the password."""
    meaning = _meaning(error)
    if isinstance(error, exceptions.TimeoutError) and parse_address(settings.redis_url).tls:
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


def is_transient(error: exceptions.RedisError) -> bool:
    """Whether it may be gone when the command is sent again."""
    if is_permanent(error):
        return False
    return (
        isinstance(error, _PASSING)
        or is_read_only(error)
        or "NOREPLICAS" in str(error)
        or str(error).startswith("BUSY ")
    )
