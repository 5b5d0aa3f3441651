"""Celery's events for every job of a claim, so that Flower and exporters see jobs, not claims.

Celery sends an event at a time; a claim's are sent as one group, in the form Celery has for groups. Source:
`celery.events.dispatcher` (`buffer_group`, routing key `task.multi`) and `celery.events.receiver`.
"""

from __future__ import annotations

import base64
import contextlib
import os
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec
import redis

from headrace.envelope import Job, describe
from headrace.outcome import Cancelled, Expired, Failure, Outcome, Success
from headrace.queues import TASK


class Events:
    """Sends events of jobs from a pool process."""

    def __init__(self, client: redis.Redis, *, hostname: str, channel: str, clock: Callable[[], int]) -> None:
        self._client, self._channel, self._clock = client, channel, clock
        self._about = {
            "hostname": hostname,
            "pid": os.getpid(),
            # Celery's sign: hours to be added to local time to get UTC.
            "utcoffset": (time.altzone if time.localtime().tm_isdst else time.timezone) // 3600,
        }

    def started(self, jobs: Sequence[Job], now: datetime) -> None:
        """Jobs were received and started."""
        events: list[dict[str, Any]] = []
        for job in jobs:
            events += [
                {
                    "type": "task-received",
                    "uuid": job.id,
                    "name": TASK,
                    "args": describe(job.model, job.version, len(job.instances)),
                    "kwargs": "{}",
                    "root_id": job.id,
                    "parent_id": None,
                    "retries": 0,
                    "eta": None,
                    "expires": job.expires and job.expires.isoformat(),
                },
                {"type": "task-started", "uuid": job.id},
            ]
        self._send(events, now)

    def ended(
        self, outcomes: Sequence[Outcome], published: Sequence[Outcome], now: datetime, seconds: float
    ) -> None:
        """Jobs have their outcomes; `seconds` is what their claim took.

        An outcome that was not published came second: its job was cancelled while it ran.
        """
        stands: dict[str, Outcome] = {outcome.job: Cancelled(job=outcome.job) for outcome in outcomes}
        stands.update((outcome.job, outcome) for outcome in published)
        self._send([self._end(outcome, seconds) for outcome in stands.values()], now)

    def _end(self, outcome: Outcome, seconds: float) -> dict[str, Any]:
        match outcome:
            case Success(prediction=made):
                result = describe(made.model, made.version, len(made.predictions))
                return {"type": "task-succeeded", "uuid": outcome.job, "result": result, "runtime": seconds}
            case Failure():
                said = f"{outcome.error}: {outcome.message}"
                return {
                    "type": "task-failed",
                    "uuid": outcome.job,
                    "exception": said,
                    "traceback": outcome.traceback or said,
                }
            case Cancelled() | Expired():
                expired = isinstance(outcome, Expired)
                return {
                    "type": "task-revoked",
                    "uuid": outcome.job,
                    "terminated": False,
                    "signum": None,
                    "expired": expired,
                }

    def _send(self, events: list[dict[str, Any]], now: datetime) -> None:
        if not events:
            return
        about = {**self._about, "timestamp": now.timestamp(), "clock": self._clock()}
        body = msgspec.json.encode([{**event, **about} for event in events])
        message = {
            "body": base64.b64encode(body).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"hostname": self._about["hostname"]},
            "properties": {
                "delivery_mode": 1,
                "delivery_info": {"exchange": "celeryev", "routing_key": "task.multi"},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid.uuid4()),
            },
        }
        # An event is news of a job, never a reason to lose one.
        with contextlib.suppress(redis.RedisError):
            self._client.publish(self._channel, msgspec.json.encode(message))
