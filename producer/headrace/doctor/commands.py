"""Checks which commands a server has: managed services, proxies and `rename-command` take some away.

Each check sends a command that changes nothing. A command that the server lacks is told from one that this user
may not run, as another user may.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from redis.exceptions import NoPermissionError, RedisError, ResponseError

from headrace.connection.commands import Command, Operation
from headrace.connection.errors import missing_command
from headrace.doctor.finding import Finding, by_severity

#: A call of each command that changes nothing, whatever it answers.
_PROBES: Mapping[str, tuple[str | int, ...]] = {
    "EVAL": ("EVAL", "return 1", 0),
    "FCALL": ("FCALL", "headrace_probe", 0),
    "WAIT": ("WAIT", 0, 1),
    "CLIENT ID": ("CLIENT", "ID"),
    "CLIENT TRACKING": ("CLIENT", "TRACKING", "OFF"),
    "CLIENT UNBLOCK": ("CLIENT", "UNBLOCK", 0),
    # Without its arguments it is refused, and known by the refusal.
    "BLMOVE": ("BLMOVE",),
}
_PAGE = "see docs/reference/redis-services.md"


def examine_commands() -> Operation[list[Finding]]:
    """Return the findings about the commands of a server."""
    refusals: dict[str, ResponseError] = {}
    for name, probe in _PROBES.items():
        try:
            yield Command(probe)
        except ResponseError as error:
            refusals[name] = error
    return check_commands(refusals)


def check_commands(refusals: Mapping[str, RedisError]) -> list[Finding]:
    """Return the findings from the errors with which a server answered commands."""
    lacking = {name for name, error in refusals.items() if missing_command(error) is not None}
    denied = {name for name, error in refusals.items() if isinstance(error, NoPermissionError)}
    return by_severity([*_check_scripts(lacking, denied), *_check_waits(lacking)])


def _check_scripts(lacking: set[str], denied: set[str]) -> Iterator[Finding]:
    if "EVAL" not in lacking:
        return
    if "FCALL" in lacking:
        yield Finding(
            severity="critical",
            subject="EVAL",
            actual="missing on this server, as functions are",
            expected="EVAL and EVALSHA, or functions",
            reason="every step of a job is a script, so no job can be submitted or run",
            fix=f"use another server or service, {_PAGE}",
        )
    elif "FCALL" not in denied:
        yield Finding(
            severity="warning",
            subject="EVAL",
            actual="missing on this server",
            expected="permitted, or all functions loaded",
            reason="without a function, the scripts of a new release cannot run",
            fix="`headrace redis install` before each new release",
        )


def _check_waits(lacking: set[str]) -> Iterator[Finding]:
    notifications = sorted(lacking & {"CLIENT ID", "CLIENT TRACKING"})
    if notifications:
        yield Finding(
            severity="warning",
            subject=", ".join(notifications),
            actual="missing on this server",
            expected="present",
            reason="an idle worker asks for jobs every 0.25 s, and notices one that late",
            fix=f"nothing is lost; {_PAGE}",
        )
    elif waits := sorted(lacking & {"CLIENT UNBLOCK", "BLMOVE"}):
        yield Finding(
            severity="warning",
            subject=", ".join(waits),
            actual="missing on this server",
            expected="present",
            reason="an idle worker is woken for each job, which takes a seventh longer than waiting at Redis",
            fix=f"nothing is lost; {_PAGE}",
        )
    if "WAIT" in lacking:
        yield Finding(
            severity="warning",
            subject="WAIT",
            actual="missing on this server",
            expected="present",
            reason="submit(durable=True) is refused while the server has replicas",
            fix=f"do without durable=True; {_PAGE}",
        )
