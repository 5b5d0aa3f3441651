"""The operations on bulk runs. A name is an idempotency key: submitting it again resumes the run."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec

from headrace.bulk.progress import RunFailures, decode_failures, decode_progress, decode_reasons
from headrace.bulk.scripts import cancel_command, resume_command, submit_command
from headrace.catalog.published import ContractCache
from headrace.catalog.validation import check_method
from headrace.connection.commands import Command, Operation, Pipeline
from headrace.errors import RunConflict, StoredDataError, UnknownRun
from headrace.settings import Settings
from headrace.wire.bulk import FINAL_STATES, Run, RunProgress
from headrace.wire.bulk_checks import check_run_name
from headrace.wire.keys import Keys
from headrace.wire.signing import JobKeys
from headrace.wire.stored import decode_stored, report_damaged

_RUN = msgspec.json.Decoder(Run)
#: Runs that are read with one pipeline.
_RUNS_PER_CALL = 100


def submit_run(
    keys: Keys,
    run: Run,
    settings: Settings,
    job_keys: JobKeys | None,
    *,
    contracts: ContractCache | None,
    now: datetime,
) -> Operation[RunProgress]:
    """Submit a run, and return what is known of it.

    If the run was submitted before, it is not submitted again; if it was cancelled or failed, it is resumed.
    Raises UnknownModel, InvalidInput for an unknown method, and RunConflict if the name belongs to a run with
    other arguments. With None for `contracts`, model and method are not looked up.
    """
    if contracts is not None:
        contract = yield from contracts.resolve(run.model, run.version, now)
        check_method(contract, run.method)
    stored = yield submit_command(keys, run, job_keys, record_ttl=settings.job_ttl)
    if stored is not None:
        former = decode_stored(_RUN.decode, stored, f"the bulk run {run.name}")
        verify_same_arguments(former, run)
        progress = yield from read_run(keys, run.name)
        if progress.state in {"failure", "cancelled"}:
            return (yield from resume_run(keys, run.name, settings, job_keys))
    return (yield from read_run(keys, run.name))


def read_run(keys: Keys, name: str) -> Operation[RunProgress]:
    """Read what is known of a run. Raises UnknownRun and StoredDataError."""
    progress = decode_progress(check_run_name(name), (yield Command(("HGETALL", keys.run(name)))))
    if progress is None:
        raise UnknownRun(f"there is no bulk run {name!r}: its name is wrong, or it was last active 30 days ago")
    return progress


def list_runs(
    keys: Keys,
    *,
    model: str | None = None,
    prefix: str = "",
    is_listed: Callable[[Run], bool] = lambda _: True,
    limit: int = 100,
) -> Operation[list[RunProgress]]:
    """Read the newest runs, of one model or of all, newest first, at most `limit`. Damaged ones are skipped.

    Only runs whose names begin with `prefix` are read, and those are left out for which `is_listed` returns False.
    """
    runs: list[RunProgress] = []
    first = 0
    while len(runs) < limit:
        last = first + _RUNS_PER_CALL - 1
        names = [
            name.decode(errors="replace") for name in (yield Command(("ZRANGE", keys.runs, first, last, "REV")))
        ]
        if not names:
            break
        first += _RUNS_PER_CALL
        names = [name for name in names if name.startswith(prefix)]
        if not names:
            continue
        replies = yield Pipeline(tuple(("HGETALL", keys.run(name)) for name in names))
        for name, reply in zip(names, replies, strict=True):
            try:
                progress = decode_progress(name, reply)
            except StoredDataError as error:
                report_damaged(f"the bulk run {name}", error)
                continue
            if progress is None or model not in {None, progress.run.model}:
                continue
            if is_listed(progress.run):
                runs.append(progress)
    return runs[:limit]


def cancel_run(keys: Keys, name: str) -> Operation[RunProgress]:
    """Cancel a run unless it has ended, and return what is known of it. Raises UnknownRun.

    Chunks that run end within a slice, and chunks that wait are dropped when they are claimed.
    """
    yield cancel_command(keys, check_run_name(name))
    return (yield from read_run(keys, name))


def resume_run(keys: Keys, name: str, settings: Settings, job_keys: JobKeys | None) -> Operation[RunProgress]:
    """Plan a run once more, so that all chunks without a receipt run. Raises UnknownRun.

    Chunks that wait or run are left alone, and a run that succeeded stays as it is.
    """
    progress = yield from read_run(keys, name)
    if progress.state == "success":
        return progress
    # If somebody else resumes the run at the same moment, his plan serves as well.
    yield resume_command(keys, progress.run, progress.round, job_keys, record_ttl=settings.job_ttl)
    return (yield from read_run(keys, name))


def failures_of(keys: Keys, name: str) -> Operation[RunFailures]:
    """Read why rows of a run failed, and which chunks did. Raises UnknownRun and StoredDataError."""
    commands = (("HGETALL", keys.run(check_run_name(name))), ("HGETALL", keys.receipts(name)))
    run, receipts = yield Pipeline(commands)
    for reply in (run, receipts):
        if isinstance(reply, Exception):
            raise reply
    if decode_progress(name, run) is None:
        raise UnknownRun(f"there is no bulk run {name!r}")
    return RunFailures(reasons=decode_reasons(name, run), chunks=decode_failures(name, receipts))


def verify_same_arguments(former: Run, run: Run) -> None:
    """Check that a run that is submitted under a used name is the former run. Raises RunConflict."""
    names = [field for field in run.__struct_fields__ if getattr(former, field) != getattr(run, field)]
    if names:
        differences = " and ".join(name.replace("_", "-") for name in names)
        raise RunConflict(
            f"the bulk run {run.name!r} exists with another {differences}; a name has one set of arguments, so "
            f"use another. `headrace bulk status {run.name}` prints those of the run"
        )


def is_over(progress: RunProgress) -> bool:
    """Decide whether a run has ended, so that nothing is waited for."""
    return progress.state in FINAL_STATES
