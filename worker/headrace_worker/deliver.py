"""The last step of a claim: publish its outcomes and end its lease, in one step.

While Redis is away it tries again, for as long as a restart takes. The lease may lapse meanwhile: then the
fence refuses the outcomes, and the jobs run elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime

import redis

from headrace import outcome as outcomes
from headrace.outcome import Outcome
from headrace_worker.transport.scripts import Lease, Leases

#: Seconds before each further try.
_BACKOFF = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 5.0)


def deliver(
    leases: Leases,
    lease: Lease,
    ended: Sequence[Outcome],
    *,
    now: datetime,
    ttl: int,
    malformed: Sequence[bytes] = (),
    early: Sequence[tuple[int, bytes]] = (),
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Publish the outcomes of a claim, each unless its job has one; False when the lease was lost.

    `malformed` messages are kept aside, `early` ones (unix milliseconds, frame) wait for their time; `ttl`
    is the seconds outcomes are kept. Raises redis.RedisError when Redis stays away.
    """
    stored = {outcome.job: outcomes.encode(outcome, now) for outcome in ended}
    for wait in _BACKOFF:
        try:
            return leases.publish(lease, stored, ttl=ttl, malformed=malformed, delayed=early) is not None
        except (redis.ConnectionError, redis.TimeoutError):
            sleep(wait)
    return leases.publish(lease, stored, ttl=ttl, malformed=malformed, delayed=early) is not None
