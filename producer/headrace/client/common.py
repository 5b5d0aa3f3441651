"""Definitions that the blocking client and the asyncio client share."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from numbers import Real
from typing import TypeVar, cast

import msgspec

from headrace.dead_letters.bulk import BulkResult
from headrace.errors import InvalidInput, ResultTimeout
from headrace.inspection.job import JobState
from headrace.settings import Settings, load_settings
from headrace.submit.options import SubmitOptions

H = TypeVar("H")

#: Called a few times a second with the result of a replay or purge so far.
OnProgress = Callable[[BulkResult], None]

#: Seconds that the last look at a job's state may take after the caller's timeout has passed.
FINAL_LOOKUP_SECONDS = 0.5

#: A year, in seconds; a longer timeout is a mistake of units.
_MAX_TIMEOUT = 366 * 86_400.0


def resolve_settings(
    url: str | None,
    settings: Settings | None,
    *,
    timeout: float | None = None,
    connect_timeout: float | None = None,
) -> Settings:
    """Return `settings`, or those of the environment for None, with what the other arguments replace.

    `timeout` replaces `command_timeout`. Raises InvalidInput for a timeout that is not above 0.
    """
    settings = load_settings(Settings) if settings is None else settings
    replaced: dict[str, object] = {} if url is None else {"redis_url": url}
    timeouts = [("command_timeout", "timeout", timeout), ("connect_timeout", "connect_timeout", connect_timeout)]
    for setting, argument, value in timeouts:
        seconds = check_timeout(value, argument)
        if seconds == 0:
            raise InvalidInput(f"`{argument}` of a client is above 0; its unit is seconds")
        if seconds is not None:
            replaced[setting] = seconds
    return msgspec.structs.replace(settings, **replaced) if replaced else settings


def check_timeout(timeout: object, name: str = "timeout") -> float | None:
    """Return a timeout in seconds; None is no limit. Raises InvalidInput, with the name of the argument."""
    if timeout is None:
        return None
    if type(timeout) is float and 0.0 <= timeout <= _MAX_TIMEOUT:  # quicker than to ask for a Real
        return timeout
    if isinstance(timeout, bool) or not isinstance(timeout, Real):
        kind = type(timeout).__name__
        raise InvalidInput(f"`{name}` is a number of seconds, or None for no limit; got a {kind}")
    seconds = float(timeout)
    if not math.isfinite(seconds):
        raise InvalidInput(f"`{name}` is {seconds}; it is a finite number of seconds, or None for no limit")
    if seconds < 0:
        raise InvalidInput(f"`{name}` is negative: {seconds:g} s")
    if seconds > _MAX_TIMEOUT:
        raise InvalidInput(f"`{name}` is over a year; its unit is seconds. None is no limit")
    return seconds


def check_waits(options: SubmitOptions) -> None:
    """Raise InvalidInput if a call that waits for its outcome asks for listeners too."""
    if options.listen is not None:
        raise InvalidInput("`predict` returns the outcome itself and has no `listen`; use `submit`")


def check_handles(jobs: Sequence[object], kind: type[H]) -> list[H]:
    """Return the handles of jobs. Raises TypeError for handles of another client, such as an in-memory one."""
    for job in jobs:
        if not isinstance(job, kind):
            raise TypeError(f"a client takes handles of its own kind, {kind.__name__}; got a {type(job).__name__}")
    return cast("list[H]", jobs)


def job_timeout(state: JobState, timeout: float) -> ResultTimeout:
    """Return the error for a job without an outcome after `timeout` seconds. It says what to check."""
    advice = {
        "unknown": "Redis knows no such job: check the id, the Redis URL and the key prefix; an outcome that was "
        "forgotten, or is older than HEADRACE_RESULT_TTL, is unknown too",
        "waiting": "is a worker running? See `headrace queues`",
        "running": "a worker is running it; wait again",
    }.get(state.status, "wait again")
    return ResultTimeout(f"job {state.job} has no outcome after {timeout:g} s; it is {state.status}: {advice}")


def jobs_timeout(unfinished: Collection[str], total: int, timeout: float) -> ResultTimeout:
    """Return the error for `total` jobs of which some, by id, are unfinished after `timeout` seconds."""
    examples = ", ".join(sorted(unfinished)[:3])
    more = ", ..." if len(unfinished) > 3 else ""
    return ResultTimeout(
        f"{len(unfinished)} of {total} jobs have no outcome after {timeout:g} s ({examples}{more}); "
        "they go on: is a worker running? See `headrace queues`"
    )
