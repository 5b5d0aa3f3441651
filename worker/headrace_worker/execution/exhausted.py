"""Give up a job in the main process, if the pool processes that were to give it up were lost too.

A pool process gives a job up (`opening`), as it reports the job's end to all listeners. But if a message takes
more memory than the process has left, even that ends the process. The job must not come back for ever: the main
process, which has no memory limit, then stores its outcome and its dead letter, and does not look at the message.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable

from headrace.wire.outcome import encode_outcome
from headrace_worker.execution.opening import open_exhausted
from headrace_worker.execution.settle import OutcomeDecider
from headrace_worker.manifest import Limits
from headrace_worker.transport.claims import Claim
from headrace_worker.transport.leases import Leases

log = logging.getLogger("headrace.claims")


def give_up_exhausted(
    claim: Claim, leases: Leases, limits_of: Callable[[str], Limits], *, worker: str, ttl: int
) -> bool:
    """Give up the isolated job of a claim if a pool process cannot. Return whether the claim has ended so.

    `limits_of` returns the limits of a model by its name. `worker` is written into the dead letter, and `ttl` is
    the number of seconds for which the outcome is kept. Raises redis.RedisError.
    """
    now = claim.server_time(time.monotonic())
    parsed = open_exhausted(claim, now, lambda model, _version: limits_of(model))
    if parsed is None:
        return False
    decider = OutcomeDecider(
        queue=claim.lease.queue,
        owner=claim.lease.owner,
        worker=worker,
        now_ms=int(now.timestamp() * 1000),
        chance=random.random,
    )
    decider.add_results(parsed.finished)
    decider.add_malformed(parsed.malformed)
    decisions = decider.decisions
    jobs = [result.claimed for result in parsed.finished]
    leases.publish(
        claim.lease,
        {job: encode_outcome(outcome, now, worker=worker) for job, outcome in decisions.outcomes.items()},
        ttl=ttl,
        clients={claimed.job.id: claimed.reply_channel for claimed in jobs if claimed.reply_channel},
        dead_letters=decisions.letters,
    )
    log.error(
        "gave up a job of %s in the main process: each pool process that was to give it up was lost; "
        "HEADRACE_MEMORY_LIMIT leaves too little for HEADRACE_MAX_JOB_BYTES",
        claim.lease.queue,
    )
    return True
