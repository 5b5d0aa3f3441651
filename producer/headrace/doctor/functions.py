"""Checks the functions that an administrator loaded into Redis, so that users need not run EVAL.

The scripts of an installation are those of its distributions. Another distribution names, as an entry point of the
group `headrace.scripts`, a module that imports its scripts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from importlib.metadata import entry_points

from redis.exceptions import ResponseError

from headrace.connection.commands import Operation, Script
from headrace.connection.functions import read_functions
from headrace.connection.script_calls import is_function_missing
from headrace.doctor.finding import Finding
from headrace.text import plural

#: The modules of this distribution that have scripts.
_MODULES = (
    "headrace.bulk.scripts",
    "headrace.catalog.aliases",
    "headrace.catalog.callers",
    "headrace.catalog.published",
    "headrace.catalog.rate",
    "headrace.catalog.workers",
    "headrace.dead_letters.scripts",
    "headrace.inspection.job",
    "headrace.inspection.locate",
    "headrace.inspection.oldest",
    "headrace.inspection.queues",
    "headrace.inspection.unread_lists",
    "headrace.results.cancellation",
    "headrace.results.letter_scripts",
    "headrace.results.listen_scripts",
    "headrace.results.notice_scripts",
    "headrace.results.publish",
    "headrace.results.started",
    "headrace.submit.durability",
    "headrace.submit.enqueue",
)

_INSTALL = "headrace redis install, as a user who may load functions"


def load_scripts() -> Sequence[Script]:
    """Import all modules with scripts, of all installed distributions, and return the scripts."""
    for module in _MODULES:
        import_module(module)
    for entry in entry_points(group="headrace.scripts"):
        entry.load()
    return tuple(Script.every.values())


def examine_functions(*, local: bool) -> Operation[list[Finding]]:
    """Return the findings about the functions of a server. `local` is true if only this machine reaches it."""
    try:
        loaded = yield from read_functions()
    except ResponseError as error:
        if is_function_missing(error):
            return [] if local else [_UNSUPPORTED]
        return []  # an administrator's command, which no other user needs
    return list(check_functions(loaded, load_scripts(), local=local))


_UNSUPPORTED = Finding(
    severity="warning",
    subject="functions",
    actual="missing in this version of Redis",
    expected="Redis 7 or later",
    reason="every user has to run EVAL, and an intruder can hold Redis with a script that does not end",
    fix="upgrade Redis, then run `headrace redis install`",
)


def check_functions(loaded: Mapping[str, str], scripts: Sequence[Script], *, local: bool) -> Iterator[Finding]:
    """Yield the findings about loaded functions of any release, by name with their code."""
    changed = [
        script.function for script in scripts if loaded.get(script.function, script.library) != script.library
    ]
    if changed:
        yield Finding(
            severity="critical",
            subject="functions",
            actual=f"changed: {', '.join(changed)}",
            expected="as this release has them",
            reason="somebody else's code runs with the permissions of each user who calls it",
            fix=f"find out who may FUNCTION LOAD, then run {_INSTALL}",
        )
    missing = sum(script.function not in loaded for script in scripts)
    if missing and loaded:
        yield Finding(
            severity="error",
            subject="functions",
            actual=f"loaded without {plural(missing, 'function')} of this release",
            expected="complete",
            reason="users who may not EVAL cannot submit or claim",
            fix=_INSTALL,
        )
    elif missing and not local:
        yield Finding(
            severity="warning",
            subject="functions",
            actual="not loaded",
            expected="loaded",
            reason="every user has to run EVAL, and an intruder can hold Redis with a script that does not end",
            fix=_INSTALL,
        )
