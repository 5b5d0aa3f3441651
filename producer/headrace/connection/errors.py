"""Errors of Redis: which of them are transient, and what each means to a person."""

from __future__ import annotations

import re
from types import TracebackType

from redis import exceptions
from redis.asyncio.sentinel import MasterNotFoundError as AsyncPrimaryNotFound
from redis.sentinel import MasterNotFoundError as PrimaryNotFound

from headrace.connection.cluster_errors import NotACluster, SlotMoved, SlotNotServed
from headrace.connection.script_calls import FunctionMissing
from headrace.connection.url import describe_server, parse_address
from headrace.errors import BrokerUnavailable
from headrace.settings import Settings

#: Errors of a server that is down, is starting, or fails over.
_TRANSIENT_ERRORS = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ClusterDownError,
    exceptions.TryAgainError,
)


def is_permanent(error: exceptions.RedisError) -> bool:
    """Decide whether Redis refuses the user, so that repeating the command is no use."""
    return isinstance(
        error, exceptions.AuthenticationError | exceptions.AuthorizationError | exceptions.NoPermissionError
    )


def is_read_only(error: BaseException) -> bool:
    """Decide whether the error is that of a read-only replica. Errors inside a script are known by their text."""
    text = str(error)
    return isinstance(error, exceptions.ReadOnlyError) or "READONLY" in text or "read only replica" in text


def is_wrong_type(error: BaseException) -> bool:
    """Decide whether a key holds another type than Headrace stores there."""
    return isinstance(error, exceptions.ResponseError) and "WRONGTYPE" in str(error)


def is_transient(error: exceptions.RedisError) -> bool:
    """Decide whether the same command may succeed later."""
    if is_permanent(error):
        return False
    return (
        isinstance(error, _TRANSIENT_ERRORS)
        or is_read_only(error)
        or "NOREPLICAS" in str(error)
        or str(error).startswith("BUSY ")
    )


class translate_errors:  # noqa: N801  # used as a verb: a context manager that costs less than a generator
    """Turn errors of Redis in the block into BrokerUnavailable, and keep their notes."""

    __slots__ = ("_settings",)

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not isinstance(error, exceptions.RedisError):
            return
        translated = translate_error(error, self._settings)
        for note in getattr(error, "__notes__", ()):
            translated.add_note(note)
        raise translated from error


def translate_error(error: exceptions.RedisError, settings: Settings) -> BrokerUnavailable:
    """Return the error that says what an error of Redis means, on which server, and what to do.

    It never shows the password.
    """
    meaning = _explain(error)
    if isinstance(error, exceptions.TimeoutError) and parse_address(settings.redis_url).tls:
        # A Redis without TLS takes the TLS handshake for the start of a command, and waits for the rest.
        meaning = f"cannot be reached over TLS, or {meaning} Does the port speak TLS?"
    return BrokerUnavailable(f"Redis at {describe_server(settings)} {meaning}")


_BAD_LOGIN = "refuses the user or password; check HEADRACE_REDIS_URL (in the URL, `redis://USER:PASSWORD@HOST`)"
_NO_MEMORY = "has no memory left for another job (maxmemory); run more workers, or give it more"


def _explain(error: exceptions.RedisError) -> str:
    text = str(error)
    match error:
        case exceptions.AuthenticationError() | exceptions.AuthorizationError():
            if "no password" in text or "without any password" in text:
                return "asks for no password but the URL has one; remove it, or set `requirepass` there"
            return _BAD_LOGIN
        case FunctionMissing():
            return text
        case exceptions.NoPermissionError():
            return f"does not permit this user a command, key or channel: {text}; see its ACL"
        case exceptions.BusyLoadingError():
            return "is still loading its data; try again in a moment"
        case exceptions.OutOfMemoryError():
            return _NO_MEMORY
        case _ if is_read_only(error):
            return "is a read-only replica; point HEADRACE_REDIS_URL at the primary"
        case exceptions.TimeoutError():
            return "does not answer in time; is it overloaded, or is something between dropping packets?"
        case PrimaryNotFound() | AsyncPrimaryNotFound():
            return "has no primary now: no Sentinel names one that is up; do they run, and is master_name right?"
        case SlotMoved():
            return f"moves the slot of the key prefix, or fails over: {text}; try again in a moment"
        case SlotNotServed():
            return (
                f"has no primary for the slot of the key prefix now: {text}; do its nodes run, and is it complete?"
            )
        case NotACluster():
            return "is not in cluster mode; write redis:// in HEADRACE_REDIS_URL, and one host"
        case exceptions.MovedError() | exceptions.AskError() | exceptions.ClusterCrossSlotError():
            return _explain_cluster_node(error)
        case exceptions.ConnectionError():
            return _explain_connection_error(text)
        case exceptions.ResponseError() if name := missing_command(error):
            return f"does not have the command {name}; docs/reference/redis-services.md says what Headrace needs"
        case exceptions.ResponseError():
            return _explain_refusal(text)
        case _:
            return f"failed: {type(error).__name__}: {text}"


#: What to do about a node of a cluster that a URL names as if it were a server of its own.
USE_CLUSTER_URL = "write cluster://HOST:PORT in HEADRACE_REDIS_URL, with any of its nodes"


def _explain_cluster_node(error: exceptions.ResponseError) -> str:
    """Return what to do about an answer of a cluster's node. redis-py leaves the first word of the answer out."""
    answer = f"{getattr(error, 'status_code', None) or type(error).__name__} {error}"
    return f"is a node of a Redis Cluster, and does not serve the key here ({answer}); {USE_CLUSTER_URL}"


def _explain_connection_error(text: str) -> str:
    if "No connection available" in text:
        return "has not answered the commands under way, and no connection is left for this one"
    if "max number of clients" in text:
        return "has no connection left (maxclients); close some, or raise it"
    if "SSL" in text or "certificate" in text:
        problem = _on_one_line(text)
        return f"cannot be reached over TLS ({problem}); check rediss://, the port, and ssl_ca_certs in the URL"
    return f"cannot be reached ({_on_one_line(text)}); is it running, and is HEADRACE_REDIS_URL right?"


#: How servers answer a command that they do not have. Behind the name, they quote arguments.
_MISSING_COMMAND = re.compile(
    r"(?:ERR )?(?:unknown|unsupported) (?:sub)?command[ ,:]*[`'\"]?(?P<name>[\w|.-]+)", re.IGNORECASE
)


def missing_command(error: BaseException) -> str | None:
    """Return the name of the command that the server says it lacks; None for another error."""
    match = _MISSING_COMMAND.match(str(error)) if isinstance(error, exceptions.ResponseError) else None
    return match["name"].upper() if match else None


def _explain_refusal(text: str) -> str:
    # Errors inside a script have no class of their own, only the text.
    if "OOM" in text or "maxmemory" in text:
        return _NO_MEMORY
    if "unauthenticated" in text:
        return _BAD_LOGIN
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
        return f"has a key of another program with a name of Headrace: {text}; set another HEADRACE_KEY_PREFIX"
    return f"refused a command: {text}"


def _on_one_line(text: str) -> str:
    """Return an error text of redis-py on one line, without the full stop."""
    return " ".join(text.split()).rstrip(".")
