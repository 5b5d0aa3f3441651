"""The `Execution` of each job of a claim, which is stored beside its outcome (`headrace.wire.execution`)."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from headrace.wire.execution import Execution
from headrace_worker.execution.claimed_job import JobResult
from headrace_worker.execution.predict import BatchRun
from headrace_worker.transport.claims import Claim


def encode_executions(claim: Claim, results: Iterable[JobResult]) -> dict[str, msgspec.Raw]:
    """Return each job's execution as JSON, by job id."""
    without_run = Execution(
        lease=claim.lease.name, claimed_ms=claim.claimed_ms, claim_size=len(claim.queued_messages)
    )
    # The jobs of a batch share the execution, unless they have earlier attempts, which few have.
    by_run: dict[int, tuple[Execution, msgspec.Raw]] = {id(None): (without_run, without_run.encode())}
    encoded: dict[str, msgspec.Raw] = {}
    for result in results:
        batch_run, claimed = result.batch_run, result.claimed
        if batch_run is not None and id(batch_run) not in by_run:
            execution = _of_batch(without_run, claim, batch_run)
            by_run[id(batch_run)] = execution, execution.encode()
        execution, as_json = by_run[id(batch_run)]
        if claimed.attempts:
            as_json = msgspec.structs.replace(execution, attempts=claimed.attempts).encode()
        encoded[claimed.job.id] = as_json
    return encoded


def _of_batch(execution: Execution, claim: Claim, batch_run: BatchRun) -> Execution:
    manifest = batch_run.batch.model.manifest
    return msgspec.structs.replace(
        execution,
        version=manifest.version,
        runtime=manifest.runtime,
        started_ms=max(0, round((batch_run.started_at - claim.claimed_monotonic) * 1000)),
        duration_ms=round(batch_run.duration * 1000, 1),
        instances=batch_run.batch.instance_count,
    )
