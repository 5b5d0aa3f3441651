"""The states of a caller's jobs, many at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from redis.exceptions import RedisError

from headrace.connection.commands import Command, Operation, Pipeline
from headrace.inspection.job import JobState, decode_state
from headrace.wire.keys import Keys
from headrace.wire.names import is_job_id
from headrace.wire.record import Record, decode_record
from headrace_gateway.callers import Caller
from headrace_gateway.ownership import own_id, unknown_job
from headrace_gateway.state import Gateway

#: Jobs that are read with one command.
_JOBS_PER_COMMAND = 1000


async def find_jobs(gateway: Gateway, caller: Caller, names: Sequence[str]) -> list[tuple[str, str | None]]:
    """Return the id of each of a caller's jobs, and its model; None for the model where a job has no record.

    The names are ids, or those that the caller gave, as for `find_job`. Raises a Problem: 404 if a job is unknown,
    or another caller's.
    """
    ids = [[job for job in dict.fromkeys((name, own_id(caller, name))) if is_job_id(job)] for name in names]
    records: dict[str, Record | None] = {}
    for chunk in _in_chunks(list(dict.fromkeys(itertools.chain(*ids)))):
        records |= await gateway.run(_read_records(gateway.keys, chunk))
    jobs = []
    for candidates in ids:
        for job in candidates:
            record = records.get(job)
            if job in records and caller.may_see(record.owner if record else None):
                jobs.append((job, record.model if record else None))
                break
        else:
            raise unknown_job()
    return jobs


async def read_states(gateway: Gateway, jobs: Sequence[str]) -> list[JobState]:
    """Return the states of jobs that are known, without their models."""
    states = list[JobState]()
    for chunk in _in_chunks(jobs):
        stored = await gateway.run(_read_stored(gateway.keys, chunk))
        states += (decode_state(job, value, model="") for job, value in zip(chunk, stored, strict=True))
    return states


def _in_chunks(jobs: Sequence[str]) -> Iterator[Sequence[str]]:
    return (jobs[start : start + _JOBS_PER_COMMAND] for start in range(0, len(jobs), _JOBS_PER_COMMAND))


def _read_stored(keys: Keys, jobs: Sequence[str]) -> Operation[list[bytes | None]]:
    """Read what the result keys of jobs hold."""
    stored: list[bytes | None] = yield Command(("MGET", *[keys.result(job) for job in jobs]))
    return stored


def _read_records(keys: Keys, jobs: Sequence[str]) -> Operation[dict[str, Record | None]]:
    """Read the records of jobs; None for a known job that has none. A job that is unknown is left out."""
    stored = yield Pipeline(tuple(("GET", keys.job(job)) for job in jobs))
    records: dict[str, Record | None] = {}
    for job, value in zip(jobs, stored, strict=True):
        if isinstance(value, RedisError):
            raise value
        if value is not None:
            records[job] = decode_record(job, value)
    # A job of a plain Celery client has no record, and an outcome can outlive the record of its job.
    for job in [job for job in jobs if job not in records]:
        if (yield Command(("GETRANGE", keys.result(job), 0, 0))):
            records[job] = None
    return records
