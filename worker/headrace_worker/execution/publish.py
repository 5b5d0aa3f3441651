"""The last step of a claim: publish its outcomes, dead letters and retries, and end its lease, in one step.

While Redis is away or refuses, it tries again, for as long as a restart takes. The lease may lapse meanwhile: then
the fence refuses the outcomes, and the jobs run elsewhere.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType

import msgspec
import redis

from headrace.connection.errors import is_read_only
from headrace.wire.outcome import Outcome, encode_outcome
from headrace_worker.execution.settle import ClaimDecisions
from headrace_worker.transport.leases import Lease, Leases

log = logging.getLogger("headrace.claims")

#: Seconds before each further try.
_BACKOFF = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 5.0)


def publish_outcomes(
    leases: Leases,
    lease: Lease,
    decisions: ClaimDecisions,
    *,
    now: datetime,
    ttl: int,
    reply_channels: Mapping[str, str] = MappingProxyType({}),
    executions: Mapping[str, msgspec.Raw] = MappingProxyType({}),
    worker: str | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Outcome] | None:
    """Publish what became of a claim, each outcome unless its job has one; None when the lease was lost.

    Returns the outcomes that were published: of a job that was cancelled while it ran, nothing. `inboxes` are
    those of the clients that wait, by job id; `runs` how the jobs came to their outcomes
    (`headrace_worker.execution.records`), on the worker of that name; `ttl` is the seconds outcomes are
    kept. Raises redis.RedisError when Redis stays
    away, or goes on refusing: full, read-only, loading, or unable to write its disk.
    """
    stored = {
        job: encode_outcome(outcome, now, execution=executions.get(job), worker=worker)
        for job, outcome in decisions.outcomes.items()
    }
    waits = iter(_BACKOFF)
    while True:
        try:
            replies = leases.publish(
                lease,
                stored,
                ttl=ttl,
                clients=reply_channels,
                dead_letters=decisions.letters,
                delayed=decisions.delayed,
            )
            break
        except redis.RedisError as error:
            wait = next(waits, None)
            if wait is None:
                raise
            if wait == _BACKOFF[0]:
                log.warning(
                    "could not publish %d outcomes of %s, will try again: %s", len(stored), lease.queue, error
                )
            if is_read_only(error):
                leases.reconnect()
            sleep(wait)
    if replies is None:
        return None
    return [outcome for outcome, first in zip(decisions.outcomes.values(), replies, strict=True) if first]
