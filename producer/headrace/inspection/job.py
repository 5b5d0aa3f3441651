"""Where a job is, and what became of it."""

from __future__ import annotations

import msgspec
from redis.exceptions import RedisError, ResponseError

from headrace.catalog.published import list_models
from headrace.connection.commands import Operation, Pipeline, Script
from headrace.inspection.locate import JobLocator, is_not_permitted
from headrace.inspection.timeline import JobFacts, Timeline, build_timeline
from headrace.wire.dead_letter import decode_letter
from headrace.wire.execution import Completion, decode_completion
from headrace.wire.keys import Keys
from headrace.wire.outcome import Outcome, Status, decode_or_malformed, outcome_status
from headrace.wire.record import decode_record

_LOOK = Script("return {redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])}")


class JobState(msgspec.Struct, frozen=True, kw_only=True):
    """What Redis knows of a job at one moment."""

    job: str
    model: str | None
    status: Status
    outcome: Outcome | None


class JobInspector:
    """Looks jobs up. Reads only."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def read_state(self, job: str) -> Operation[JobState]:
        """What is known of a job."""
        stored, record = yield _LOOK([self._keys.result(job), self._keys.job(job)])
        return job_state(job, stored, decode_record(record).model if record else None)

    def explain(self, job: str) -> Operation[Timeline]:
        """What became of a job."""
        known = yield from self._known(job)
        if known.outcome is not None or known.dead_letter is not None:
            return build_timeline(known)
        models = [known.record.model] if known.record else (yield from list_models(self._keys))
        earliest = known.record.not_before_ms if known.record else None
        try:
            place = yield from JobLocator(self._keys, job, known.submitted_ms, earliest).find(models)
        except ResponseError as error:
            if not is_not_permitted(error):
                raise
            return build_timeline(msgspec.structs.replace(known, location_known=False))
        if place is None:  # it may have ended while it was looked for
            known = yield from self._known(job)
        return build_timeline(msgspec.structs.replace(known, location=place))

    def _known(self, job: str) -> Operation[JobFacts]:
        keys = self._keys
        commands = (
            ("GET", keys.result(job)),
            ("GET", keys.job(job)),
            ("HGET", keys.dead, job),
            ("ZSCORE", keys.dead_times, job),
        )
        # What this user may not read is not told.
        stored, record, line, died = (
            None if isinstance(reply, RedisError) else reply for reply in (yield Pipeline(commands))
        )
        return JobFacts(
            job=job,
            record=decode_record(record) if record else None,
            outcome=decode_or_malformed(job, stored) if stored else None,
            completion=decode_completion(stored) if stored else Completion(),
            dead_letter=decode_letter(job, line, int(float(died))) if line and died else None,
        )


def job_state(job: str, stored: bytes | None, model: str | None) -> JobState:
    """A job by its result key and the model in its record, None where there is none."""
    ended = decode_or_malformed(job, stored) if stored else None
    status: Status = "unknown"
    if ended is not None:
        status = outcome_status(ended)
    elif stored is not None and b"STARTED" in stored[:64]:
        status = "running"
    elif stored is not None or model is not None:
        status = "queued"
    return JobState(job=job, model=model, status=status, outcome=ended)
