"""The quick wait for the outcome of a new job, for blocking code: on a direct subscriber."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from headrace.client.blocking.session import Session
from headrace.clock import Deadline
from headrace.results.reply_channel import SINGLE_WAIT_SECONDS
from headrace.submit.options import SubmitOptions
from headrace.wire.outcome import Outcome


def submit_and_receive(
    session: Session, options: SubmitOptions, instances: Sequence[Any], now: datetime, deadline: Deadline
) -> tuple[str, Outcome | None]:
    """Submit a job under a new id. Return the id, and the outcome, None if it does not arrive soon."""
    with session.connections.direct_subscribers.acquire() as subscriber:
        reply_channel = subscriber.reply_channel if subscriber.open(deadline) else None
        job = session.run(
            session.submitter.submit(options, instances, None, now, reply_channel), deadline.remaining()
        )
        outcome = subscriber.receive(job, deadline.remaining_or(SINGLE_WAIT_SECONDS)) if reply_channel else None
    return job, outcome
