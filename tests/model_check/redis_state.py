"""The state of the jobs and leases of a trace, as they lie in Redis."""

from __future__ import annotations

import redis

from headrace.wire.attempts import decode_delayed, decode_queued_message, select_counted
from headrace.wire.keys import Keys
from headrace.wire.outcome import Cancelled, Failure, Outcome, Success, decode_outcome
from headrace_worker.transport.claims import Lease
from tests.model_check.traces import JobState, LeaseState

QUEUE = "predict.churn"
#: The highest number of attempts that the model counts.
_MAX_ATTEMPTS = 3
#: The numbers of the outcomes in the model.
_OUTCOMES: dict[type[Outcome], int] = {Success: 1, Failure: 2, Cancelled: 3}


class RedisState:
    """Reads the state of jobs and leases, numbered as in the model."""

    def __init__(self, db: redis.Redis, keys: Keys) -> None:
        self._db, self._keys = db, keys

    def read_job(self, job: int) -> tuple[JobState, bytes | None]:
        """Return the state of a job, and its queued message; None if it lies nowhere."""
        keys, db = self._keys, self._db
        waiting = [key for key in keys.sources(QUEUE) if key != keys.isolated(QUEUE)]
        queued = [message for key in waiting for message in db.lrange(key, 0, -1) if is_of(message, job)]
        isolated = [message for message in db.lrange(keys.isolated(QUEUE), 0, -1) if is_of(message, job)]
        members = db.zrange(keys.delayed(QUEUE), 0, -1)
        delayed = [decode_delayed(member)[1] for member in members if is_of(member, job)]
        leases = db.scan_iter(keys.lease("*"), _type="list")
        leased = [message for key in leases for message in db.lrange(key, 0, -1) if is_of(message, job)]
        messages = [*queued, *isolated, *delayed, *leased]
        attempts = len(select_counted(decode_queued_message(messages[-1])[0])) if messages else 0
        stored = db.get(keys.result(job_name(job)))
        state = JobState(
            has_record=db.exists(keys.job(job_name(job))),
            queued=len(queued),
            isolated=len(isolated),
            delayed=len(delayed),
            outcome=0 if stored is None else _OUTCOMES[type(decode_outcome(stored))],
            has_letter=int(db.hexists(keys.dead, job_name(job))),
            attempts=min(attempts, _MAX_ATTEMPTS),
        )
        return state, messages[-1] if messages else None

    def read_lease(self, lease: Lease | None, jobs: int) -> LeaseState:
        """Return the state of a lease, of which none may have been made yet. `jobs` is the number of all jobs."""
        if lease is None:
            return LeaseState(0, 0)
        key = self._keys.lease(lease.name)
        messages = self._db.lrange(key, 0, -1) if self._db.type(key) == b"list" else []
        is_member = self._db.zscore(self._keys.leases, lease.member) is not None
        bits = sum(1 << job for job in range(jobs) for message in messages if is_of(message, job))
        return LeaseState(int(is_member), bits)


def job_name(job: int) -> str:
    """Return the id of a job of the model."""
    return f"job-{job}"


def is_of(message: bytes, job: int) -> bool:
    """Decide whether a message is that of a job."""
    return job_name(job).encode() in message


def list_jobs(bits: int) -> list[int]:
    """Return the numbers of the jobs in a set of bits."""
    return [job for job in range(bits.bit_length()) if bits >> job & 1]
