"""The decisions of a wait for the end of a run, without I/O."""

from __future__ import annotations

from redis.exceptions import RedisError

from headrace.clock import exponential_delay
from headrace.connection.errors import is_transient
from headrace.errors import BrokerUnavailable, ResultTimeout, RunCancelled, RunFailed
from headrace.inspection.run_pace import measure_pace
from headrace.wire.bulk import RunProgress

#: Seconds between two looks at a run: the first and the longest. A run takes seconds to hours, and each look costs
#: Redis a few microseconds.
_FIRST_POLL, _LONGEST_POLL = 0.05, 0.5


def next_poll(polls: int) -> float:
    """Return the seconds to the next look at a run, after this number of looks."""
    return exponential_delay(polls + 1, first=_FIRST_POLL, longest=_LONGEST_POLL)


def stays_away(error: BrokerUnavailable) -> bool:
    """Decide whether Redis refuses the client, so that waiting for its return is no use."""
    return not (isinstance(error.__cause__, RedisError) and is_transient(error.__cause__))


def verify_success(progress: RunProgress) -> RunProgress:
    """Return the progress of a run that has ended. Raises RunFailed and RunCancelled."""
    name = progress.run.name
    if progress.state == "failure":
        raise RunFailed(_describe_failure(progress), run=name)
    if progress.state == "cancelled":
        raise RunCancelled(
            f"the bulk run {name} was cancelled; `headrace bulk resume {name}` predicts the rest", run=name
        )
    return progress


def _describe_failure(progress: RunProgress) -> str:
    name, error = progress.run.name, progress.error or "its workers gave no reason"
    if progress.chunks is None:
        return (
            f"the bulk run {name} failed: {error}. Mend that, and `headrace bulk resume {name}` plans it again; "
            "other arguments need another name"
        )
    return (
        f"the bulk run {name} failed: {error}. `headrace bulk failures {name}` says what failed, and `headrace "
        f"bulk resume {name}` predicts the rest"
    )


def run_timeout(name: str, progress: RunProgress | None, timeout: float) -> ResultTimeout:
    """Return the error for a run that goes on after `timeout` seconds. It says what to check."""
    if progress is None or progress.started_ms is None:
        return ResultTimeout(
            f"the bulk run {name} is not planned after {timeout:g} s: does a worker serve its model? "
            f"`headrace explain {name}` looks"
        )
    share = measure_pace(progress, 0).share
    done = "" if share is None else f", {share:.0%} done"
    return ResultTimeout(f"the bulk run {name} goes on after {timeout:g} s{done}; wait again")
