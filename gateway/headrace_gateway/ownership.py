"""Owners of jobs and bulk runs. A job names its owner in its record, a run in its specification.

To a caller, what belongs to another is the same as what does not exist: 404, with the same text.
"""

from __future__ import annotations

import hashlib

from headrace.client.aio.job import AsyncJobHandle
from headrace.errors import InvalidInput
from headrace.inspection.job import JobInspector
from headrace.wire.bulk_checks import check_run_name
from headrace.wire.names import check_job_id
from headrace.wire.outcome import Status
from headrace_gateway.callers import Caller
from headrace_gateway.problems import Problem
from headrace_gateway.state import Gateway

#: Hexadecimal digits of the digest in the name of a run: names have 64 characters at most.
_RUN_DIGEST = 31


def own_id(caller: Caller, name: str) -> str:
    """Return the id of a job that a caller names: `<caller>.<name>`, hashed if no id may look so.

    So two callers' ids never meet, and `PUT /v1/jobs/NAME` and `Idempotency-Key: NAME` are the same job. The id
    that an answer shows is the caller's too: it stays as it is.
    """
    job = name if not caller.name or name.startswith(f"{caller.name}.") else f"{caller.name}.{name}"
    try:
        return check_job_id(job)
    except InvalidInput:
        return f"{caller.name or 'job'}.{hashlib.sha256(name.encode()).hexdigest()}"


async def find_job(gateway: Gateway, caller: Caller, job: str) -> tuple[AsyncJobHandle, Status]:
    """Return a caller's job by its id, or by the name that the caller gave it, and its status.

    The handle holds the outcome if there is one.

    Raises a Problem, 404, for an unknown or forgotten job, and for that of another caller. Raises HeadraceError.
    """
    names = dict.fromkeys((job, own_id(caller, job)))
    for name in names:
        try:
            handle = gateway.client.job(name)
        except InvalidInput:
            continue
        state = await gateway.run(JobInspector(gateway.keys).read_state(name))
        if state.status != "unknown" and caller.may_see(state.owner):
            if state.outcome is not None:
                handle.set_outcome(state.outcome)
            handle.model = state.model
            return handle, state.status
    raise unknown_job()


def unknown_job() -> Problem:
    """Return the problem for a job that does not exist, or is not the caller's."""
    return Problem(
        404,
        "unknown-job",
        "there is no such job: its id is wrong, its outcome is no longer kept, or it is not a job of this key",
    )


def own_run(caller: Caller, name: str) -> str:
    """Return the name of a bulk run that a caller names: `<caller>.<name>`, hashed if no run may be called so.

    So two callers' names never meet. Another producer may use the same name: the owner of a run is in the run.
    """
    prefix = run_prefix(caller)
    run = name if name.startswith(prefix) else f"{prefix}{name}"
    try:
        return check_run_name(run)
    except InvalidInput:
        return f"{caller.name or 'run'}.{hashlib.sha256(name.encode()).hexdigest()[:_RUN_DIGEST]}"


def run_prefix(caller: Caller) -> str:
    """Return the beginning of the names of a caller's runs. An open gateway has one caller, whose are all."""
    return f"{caller.name}." if caller.name else ""


def unknown_run() -> Problem:
    """Return the problem for a bulk run that does not exist, or is not the caller's."""
    return Problem(
        404,
        "unknown-run",
        "there is no such bulk run: its name is wrong, it is no longer kept, or it is not a run of this key",
    )
