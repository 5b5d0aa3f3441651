"""The last step of a claim: publish its outcomes and end its lease, in one step.

While Redis is away it tries again, for as long as a restart takes. The lease may lapse meanwhile: then the
fence refuses the outcomes, and the jobs run elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType

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
    inboxes: Mapping[str, str] = MappingProxyType({}),
    malformed: Sequence[bytes] = (),
    early: Sequence[tuple[int, bytes]] = (),
    sleep: Callable[[float], None] = time.sleep,
) -> list[Outcome] | None:
    """Publish the outcomes of a claim, each unless its job has one; None when the lease was lost.

    Returns what was published: of a job that was cancelled while it ran, nothing. `inboxes` are those of
    the clients that wait, by job id; `malformed` messages are
    kept aside, `early` ones (unix milliseconds, frame) wait for their time; `ttl` is the seconds outcomes are
    kept. Raises redis.RedisError when Redis stays away.
    """
    first: dict[str, Outcome] = {}
    for outcome in ended:
        first.setdefault(outcome.job, outcome)
    stored = {job: outcomes.encode(outcome, now) for job, outcome in first.items()}
    for wait in (*_BACKOFF, None):
        try:
            replies = leases.publish(lease, stored, ttl=ttl, inboxes=inboxes, malformed=malformed, delayed=early)
            break
        except (redis.ConnectionError, redis.TimeoutError):
            if wait is None:
                raise
            sleep(wait)
    if replies is None:
        return None
    return [outcome for outcome, published in zip(first.values(), replies, strict=True) if published]
