"""The state of a job and its history, read from Redis."""

from __future__ import annotations

import msgspec
from redis.exceptions import RedisError, ResponseError

from headrace.catalog.pauses import read_pauses
from headrace.catalog.published import list_models
from headrace.clock import decode_unix_ms
from headrace.connection.commands import Operation, Pipeline, Script
from headrace.connection.lua import CHECKED_FUNCTION
from headrace.errors import StoredDataError
from headrace.inspection.locate import JobLocator, is_not_permitted
from headrace.inspection.lost import find_lost_if_permitted
from headrace.inspection.timeline import JobFacts, Timeline, build_timeline
from headrace.wire.dead_letter import decode_letter
from headrace.wire.execution import Completion, decode_completion
from headrace.wire.keys import Keys
from headrace.wire.outcome import Outcome, Status, decode_or_malformed, outcome_status
from headrace.wire.queues import queue_names
from headrace.wire.record import Record, decode_record
from headrace.wire.stored import report_damaged

#: KEYS: result key, record. Returns both values.
_READ_STATE = Script(
    "read_job_state",
    CHECKED_FUNCTION + "return {checked('GET', KEYS[1]), checked('GET', KEYS[2])}",
    flag="no-writes",
)


class JobState(msgspec.Struct, frozen=True, kw_only=True):
    """The status of a job at one moment, with its outcome if there is one."""

    job: str
    #: None where the job has no record.
    model: str | None
    status: Status
    outcome: Outcome | None
    #: The caller of the HTTP gateway that the job belongs to; None for another producer's, or without a record.
    owner: str | None = None


class JobInspector:
    """Operations that read the state and the history of a job."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def read_state(self, job: str) -> Operation[JobState]:
        """Read the status of a job, and its outcome."""
        stored, record = yield _READ_STATE([self._keys.result(job), self._keys.job(job)])
        record_of_job = _decode_record(job, record)
        if record_of_job is None:
            return decode_state(job, stored, None)
        state = decode_state(job, stored, record_of_job.model)
        return msgspec.structs.replace(state, owner=record_of_job.owner) if record_of_job.owner else state

    def explain(self, job: str) -> Operation[Timeline]:
        """Read the history of a job; where it has no outcome, search for it in the queues and leases."""
        facts = yield from self._read_facts(job)
        if facts.outcome is not None or facts.dead_letter is not None:
            return build_timeline(facts)
        queues = (
            [facts.record.queue]
            if facts.record
            else [queue for model in (yield from list_models(self._keys)) for queue in queue_names(model)]
        )
        earliest_ms = facts.record.not_before_ms if facts.record else None
        locator = JobLocator(self._keys, job, facts.submitted_ms, earliest_ms)
        try:
            location = yield from locator.find(queues)
        except ResponseError as error:
            if not is_not_permitted(error):
                raise
            return build_timeline(msgspec.structs.replace(facts, may_locate=False))
        if location is None:  # it may have finished during the search
            facts = yield from self._read_facts(job)
        is_lost = False
        if location is None and facts.record is not None and facts.outcome is None:
            is_lost = job in (yield from find_lost_if_permitted(self._keys, [job], set()))
        pause = None
        if location is not None and location.state != "leased":
            pause = (yield from read_pauses(self._keys)).get(location.model)
        return build_timeline(msgspec.structs.replace(facts, location=location, pause=pause, is_lost=is_lost))

    def _read_facts(self, job: str) -> Operation[JobFacts]:
        keys = self._keys
        commands = (
            ("GET", keys.result(job)),
            ("GET", keys.job(job)),
            ("HGET", keys.dead, job),
            ("ZSCORE", keys.dead_times, job),
        )
        # A value this user may not read is treated as missing.
        stored, record, letter, died_ms = (
            None if isinstance(reply, RedisError) else reply for reply in (yield Pipeline(commands))
        )
        return JobFacts(
            job=job,
            record=_decode_record(job, record),
            outcome=decode_or_malformed(job, stored) if stored else None,
            completion=decode_completion(stored) if stored else Completion(),
            outcome_bytes=len(stored) if stored else None,
            dead_letter=decode_letter(job, letter, decode_unix_ms(died_ms)) if letter and died_ms else None,
        )


def _decode_record(job: str, stored: bytes | None) -> Record | None:
    """Return the record of a job; None if there is none, or if it is damaged, which is logged."""
    try:
        return decode_record(job, stored) if stored else None
    except StoredDataError as error:
        report_damaged(f"the record of job {job}", error)
        return None


def decode_state(job: str, stored: bytes | None, model: str | None) -> JobState:
    """Return the state of a job from its result key and from the model in its record; None where there is none."""
    finished = decode_or_malformed(job, stored) if stored else None
    status: Status = "unknown"
    if finished is not None:
        status = outcome_status(finished)
    elif stored is not None and b"STARTED" in stored[:64]:
        status = "running"
    elif stored is not None or model is not None:
        status = "waiting"
    return JobState(job=job, model=model, status=status, outcome=finished)
