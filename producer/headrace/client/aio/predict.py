"""The quick wait for the outcome of a new job, for asyncio: on the reply channel of the client."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from headrace.client.aio.session import AsyncSession
from headrace.clock import Deadline
from headrace.results.reply_channel import single_wait_seconds
from headrace.submit.options import SubmitOptions
from headrace.wire.message import new_id
from headrace.wire.outcome import Outcome


async def submit_and_receive(
    session: AsyncSession, options: SubmitOptions, instances: Sequence[Any], now: datetime, deadline: Deadline
) -> tuple[str, Outcome | None]:
    """Submit a job under a new id. Return the id, and the outcome, None if it does not arrive soon.

    The listener subscribes before the job is submitted, so the outcome cannot be stored already: no look-up is
    needed.
    """
    job = new_id()
    with session.listener.expect(job) as expected:
        # Half of the time at most: a job can be submitted, and its outcome looked up, without the subscription.
        ready = expected.is_ready or await expected.ready(
            deadline.remaining_or(2 * session.settings.connect_timeout) / 2
        )
        await session.run(session.submitter.submit(options, instances, job, now), deadline.remaining())
        seconds = single_wait_seconds(session.listener.waiting)
        return job, await expected.outcome(deadline.remaining_or(seconds)) if ready else None
