"""Operations of listeners: claim ended jobs with their outcomes, and record what became of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from headrace.connection.commands import Command, Operation, Pipeline
from headrace.errors import StoredDataError
from headrace.results.letter_scripts import DeadLetterLimits
from headrace.results.listen_scripts import (
    finish_command,
    give_up_command,
    postpone_command,
    sweep_command,
    take_command,
)
from headrace.wire.dead_letter import DeadLetter
from headrace.wire.keys import Keys
from headrace.wire.listening import LISTEN_QUEUE, Entry
from headrace.wire.outcome import Outcome, decode_or_malformed
from headrace.wire.record import decode_record

#: Milliseconds before the second delivery. Each further pause is three times as long, up to the longest.
_FIRST_PAUSE_MS, _LONGEST_PAUSE_MS = 1_000, 600_000
#: Jobs of one call of the sweep.
_JOBS_PER_SWEEP = 250


class FinishedJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that has ended, as a listener receives it."""

    id: str
    #: The model that the job was sent to.
    model: str
    #: Success, Failure, Cancelled or Expired. None: Redis no longer has it, as it was kept for its time (a day at
    #: least), or somebody forgot it.
    outcome: Outcome | None
    #: The metadata of the submit; empty if Redis no longer has it.
    metadata: dict[str, str]
    #: The number of this delivery; above 1, an earlier one failed, or its listener was lost.
    delivery: int


class ClaimedEntries(msgspec.Struct, frozen=True, kw_only=True):
    """The ended jobs of one claim."""

    #: Each entry with its job.
    jobs: tuple[tuple[Entry, FinishedJob], ...]
    #: Seconds until the next entry of the name is due; None if there is none.
    next_due: float | None
    #: The number of claimed entries without a job to hand out, such as those of a job that runs again.
    dropped: int = 0


def claim_entries(keys: Keys, name: str, *, limit: int, lease: float) -> Operation[ClaimedEntries]:
    """Claim ended jobs of a name for `lease` seconds, at most `limit` of them, and read their outcomes."""
    reply = yield take_command(keys, name, limit=limit, claim_ms=int(1000 * lease))
    next_due = None if int(reply[0]) < 0 else int(reply[0]) / 1000
    entries: list[Entry] = []
    dropped: list[bytes] = []
    for text in reply[1:]:
        try:
            entries.append(Entry.decode(text))
        except StoredDataError:  # somebody made it up: no submit accepts such an id
            dropped.append(text)
    jobs = [entry.job for entry in entries]
    stored: Sequence[Any] = ()
    if jobs:
        stored = yield Command(("MGET", *map(keys.result, jobs), *map(keys.job, jobs)))
    outcomes, records = stored[: len(jobs)], stored[len(jobs) :]
    finished: list[tuple[Entry, FinishedJob]] = []
    for entry, outcome, record in zip(entries, outcomes, records, strict=True):
        decoded = None if outcome is None else decode_or_malformed(entry.job, outcome)
        if decoded is None and record is not None and (yield Command(("ZSCORE", keys.listen_open, entry.job))):
            dropped.append(entry.encode())  # it was replayed: its next end has an entry of its own
            continue
        finished.append((entry, _finished_job(entry, decoded, record)))
    if dropped:
        yield Pipeline(tuple(finish_command(keys, text) for text in dropped))
    return ClaimedEntries(jobs=tuple(finished), next_due=next_due, dropped=len(dropped))


def _finished_job(entry: Entry, outcome: Outcome | None, record: bytes | None) -> FinishedJob:
    metadata: dict[str, str] = {}
    if record is not None:
        try:
            metadata = decode_record(entry.job, record).metadata or {}
        except StoredDataError:
            metadata = {}
    return FinishedJob(
        id=entry.job, model=entry.model, outcome=outcome, metadata=metadata, delivery=entry.deliveries
    )


def finish_entry(keys: Keys, entry: Entry) -> Operation[bool]:
    """End an entry that was handled. Return False if its claim ended before: another listener has it."""
    return bool((yield finish_command(keys, entry.encode())))


def release_entries(keys: Keys, entries: Sequence[Entry]) -> Operation[None]:
    """Let claimed entries that were not handed out be claimed at once, as if they had not been claimed."""
    if entries:
        yield postpone_command(
            keys, entries[0].name, [(entry, 0, max(0, entry.deliveries - 1)) for entry in entries]
        )


def fail_entry(keys: Keys, entry: Entry, *, error: str, host: str, max_deliveries: int) -> Operation[bool]:
    """Postpone an entry whose handling failed. Return True if it is a dead letter, after its last delivery.

    `error` is the name of the exception, `host` that of this machine.
    """
    if entry.deliveries < max_deliveries:
        yield postpone_command(keys, entry.name, [(entry, pause_ms(entry.deliveries), entry.deliveries)])
        return False
    letter = DeadLetter(
        id=f"{entry.job}.listen",
        job=entry.job,
        queue=LISTEN_QUEUE,
        reason="attempts exhausted",
        error=error,
        module="headrace.listen",
        message=f"no listener of {entry.name!r} handled the end of job {entry.job} of {entry.model} in "
        f"{min(entry.deliveries, max_deliveries)} deliveries",
        worker=host,
        runs=min(entry.deliveries, max_deliveries),
    )
    return bool((yield give_up_command(keys, entry, letter, limits=DeadLetterLimits())))


def pause_ms(deliveries: int) -> int:
    """Return the milliseconds before the next delivery, after `deliveries` of them."""
    pause = _FIRST_PAUSE_MS
    for _ in range(min(deliveries - 1, 10)):
        pause *= 3
    return min(_LONGEST_PAUSE_MS, pause)


def sweep_entries(keys: Keys, start: int) -> Operation[tuple[int, int]]:
    """Go through the jobs under way that have listeners, from number `start` on, a page of them.

    A Celery worker without Headrace stores outcomes without an entry, and so does a worker of an older release.
    Return where the next page starts, 0 behind the last one, and the number of stored entries.
    """
    members = yield Command(("ZRANGE", keys.listen_open, start, start + _JOBS_PER_SWEEP - 1))
    if not members:
        return 0, 0
    stored, removed = yield sweep_command(keys, [member.decode(errors="replace") for member in members])
    following = start + len(members) - stored - removed if len(members) == _JOBS_PER_SWEEP else 0
    return following, stored
