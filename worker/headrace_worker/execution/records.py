"""How each job of a claim came to its outcome, as it is stored beside the outcome (`headrace.wire.execution`)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import msgspec

from headrace.wire.attempts import HISTORY_MARK, decode_queued_message
from headrace.wire.execution import Execution
from headrace_worker.execution.opening import ParsedClaim
from headrace_worker.execution.predict import BatchRun
from headrace_worker.transport.leases import Claim


def executions(claim: Claim, opened: ParsedClaim, batches: Sequence[BatchRun]) -> dict[str, msgspec.Raw]:
    """The run of each job that can have an outcome, by its id, as JSON."""
    bare = Execution(lease=claim.lease.name, claimed_ms=claim.at_ms, claim_size=len(claim.frames))
    given_up = ((job, frame) for job, frame, _ in opened.finished)
    frames = {job.id: frame for job, frame in chain(zip(opened.jobs, opened.frames, strict=True), given_up)}
    found = dict.fromkeys(frames, bare.encode())
    # Those of a batch share all but the attempts, which few have.
    tried = {job: frame for job, frame in frames.items() if frame.startswith(HISTORY_MARK)}
    ran = dict.fromkeys(tried, bare)
    for one in batches:
        run = _run(bare, claim, one)
        as_json = run.encode()
        for admitted in one.batch.jobs:
            found[admitted.job.id] = as_json
            if tried and admitted.job.id in tried:
                ran[admitted.job.id] = run
    for job, frame in tried.items():
        found[job] = msgspec.structs.replace(ran[job], attempts=decode_queued_message(frame)[0]).encode()
    return found


def _run(bare: Execution, claim: Claim, one: BatchRun) -> Execution:
    manifest = one.batch.model.manifest
    return msgspec.structs.replace(
        bare,
        version=manifest.version,
        runtime=manifest.runtime,
        started_ms=max(0, round((one.started_at - claim.taken_at) * 1000)),
        duration_ms=round((one.finished_at - one.started_at) * 1000, 1),
        rows=sum(len(admitted.instances) for admitted in one.batch.jobs),
    )
