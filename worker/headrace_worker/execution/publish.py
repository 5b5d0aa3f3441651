"""The last step of a claim: publish its outcomes, dead letters and retries, and end its lease, all in one step.

While Redis is unreachable or refuses writes, publishing is retried for as long as a restart of Redis takes. If the
lease expires meanwhile, the fence refuses the outcomes, and the jobs run on another worker.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from math import ceil
from types import MappingProxyType

import msgspec
import redis

from headrace.connection.errors import is_read_only
from headrace.wire.outcome import Outcome, OutcomeLinks, Success, encode_outcome
from headrace_worker.execution.settle import ClaimDecisions
from headrace_worker.transport.claims import Lease
from headrace_worker.transport.leases import Leases
from headrace_worker.transport.publish_script import StoredFollowUps
from headrace_worker.transport.run_script import RunUpdate

log = logging.getLogger("headrace.claims")

#: Seconds before each retry, before jitter: at most one, as the process takes no other claim meanwhile.
_BACKOFF = (0.05, 0.1, 0.2, 0.5, *[1.0] * 18)
#: The smallest share of these seconds that is waited. The processes of a fleet must not retry in step.
_MIN_SHARE = 0.75


def publish_outcomes(
    leases: Leases,
    lease: Lease,
    decisions: ClaimDecisions,
    *,
    now: datetime,
    ttl: int,
    record_ttl: int = 0,
    reply_channels: Mapping[str, str] = MappingProxyType({}),
    executions: Mapping[str, msgspec.Raw] = MappingProxyType({}),
    without_result: Collection[str] = (),
    worker: str | None = None,
    links: Mapping[str, OutcomeLinks] = MappingProxyType({}),
    follow_ups: Sequence[StoredFollowUps] = (),
    hold_ms: int = 0,
    run_update: RunUpdate | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Outcome] | None:
    """Publish the decisions for a claim. Return the outcomes that were stored; None if the lease had expired.

    An outcome is not stored if its job has one already, for instance if the job was cancelled while it ran.

    `ttl` is the number of seconds for which outcomes are kept, `record_ttl` the number besides its delay for which
    the record of a delayed job is kept. `reply_channels` and `executions` are by job id:
    the channels of the clients that wait, and how the jobs came to their outcomes, on the worker of this name. The
    predictions of the jobs in `without_result` are not stored, as their clients ask. `links` are by job id too.
    The follow-ups are stored in the same step, and other workers leave them to this one for `hold_ms`.
    `run_update` is what the only outcome changes in its bulk run.

    Raises redis.RedisError if Redis stays unreachable, or goes on refusing: full, read-only, loading, or unable to
    write its disk.
    """
    stored = {
        job: encode_outcome(outcome, now, execution=executions.get(job), worker=worker, links=links.get(job))
        for job, outcome in decisions.outcomes.items()
    }
    for job in without_result:
        if type(outcome := decisions.outcomes.get(job)) is Success:
            prediction = msgspec.structs.replace(outcome.prediction, predictions=[], classes=None)
            outcome = Success(job=job, prediction=prediction)
            stored[job] = encode_outcome(
                outcome, now, execution=executions.get(job), worker=worker, links=links.get(job)
            )
    record_seconds = {job: record_ttl + ceil(delay_ms / 1000) for job, delay_ms in decisions.delays.items()}
    delays = iter(_BACKOFF)
    while True:
        try:
            is_stored = leases.publish(
                lease,
                stored,
                ttl=ttl,
                clients=reply_channels,
                dead_letters=decisions.letters,
                delayed=decisions.delayed,
                record_seconds=record_seconds,
                follow_ups=follow_ups,
                hold_ms=hold_ms,
                run_update=run_update,
            )
            break
        except redis.RedisError as error:
            delay = next(delays, None)
            if delay is None:
                raise
            if delay == _BACKOFF[0]:
                log.warning("cannot publish %d outcomes of %s, retrying: %s", len(stored), lease.queue, error)
            if is_read_only(error):
                leases.reconnect()
            sleep(delay * random.uniform(_MIN_SHARE, 1))  # noqa: S311  # spreads retries, no secret
    if is_stored is None:
        return None
    published = zip(decisions.outcomes.values(), is_stored, strict=True)
    return [outcome for outcome, was_stored in published if was_stored]
