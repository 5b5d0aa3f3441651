"""Jobs in each state, made without a worker: claimed by hand, and with stored outcomes."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import redis

from headrace.wire.attempts import Attempt
from headrace.wire.execution import Execution
from headrace.wire.keys import Keys
from headrace.wire.outcome import Outcome, Prediction, Success, encode_outcome
from headrace_worker.transport.claims import Claim, ClaimLimits
from headrace_worker.transport.leases import Leases

KEYS = Keys()
QUEUE = "predict.churn"


def claim_jobs(server: redis.Redis, jobs: int) -> tuple[Leases, Claim]:
    """Claim jobs of the queue, as a worker does."""
    leases = Leases(server, KEYS)
    claim = leases.claim("host/1/ab/1", [ClaimLimits(queue=QUEUE, jobs=jobs, bytes=10**6)], lease_ms=600_000)
    assert isinstance(claim, Claim)
    return leases, claim


def make_execution(claimed_ms: int, *attempts: Attempt, ran: bool = True, claim_size: int = 64) -> Execution:
    """Return the execution of a job that ran on version 3, or of one whose claim ran nothing."""
    execution = Execution(lease="host/1/ab/7", claimed_ms=claimed_ms, claim_size=claim_size, attempts=attempts)
    if not ran:
        return execution
    run = {"version": "3", "runtime": "treelite", "started_ms": 2, "duration_ms": 4.2, "instances": 64}
    return msgspec.structs.replace(execution, **run)


def make_success(job: str) -> Success:
    """Return the outcome of a job that was predicted."""
    return Success(job=job, prediction=Prediction(model="churn", version="3", predictions=[47118]))


def store_outcome(server: redis.Redis, outcome: Outcome, execution: Execution | None = None) -> None:
    """Store an outcome with the execution that led to it."""
    encoded = encode_outcome(
        outcome, datetime.now(UTC), execution=execution and execution.encode(), worker="worker@pod-7"
    )
    server.set(KEYS.result(outcome.job), encoded, ex=600)
