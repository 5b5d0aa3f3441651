"""Celery's events for every job of a claim, so that Flower and exporters see jobs, not claims.

Celery sends an event at a time; a claim's are sent as one group, in the form Celery has for groups. Source:
`celery.events.dispatcher` (`buffer_group`, routing key `task.multi`) and `celery.events.receiver`.

An event is told to those who listen now, and kept for nobody. So of a large claim it is first asked whether
anyone does: making its events takes as long as opening its messages.
"""

from __future__ import annotations

import base64
import os
import time
import uuid
import zlib
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec
import redis

from headrace.envelope import Job, describe
from headrace.outcome import Cancelled, Expired, Failure, Outcome, Success
from headrace.queues import TASK

#: For fewer jobs it is not asked whether anyone listens: the answer would take as long as the events.
_ASK_FROM = 16


class Events:
    """Sends events of jobs from a pool process, over a connection of its own.

    `share` is the part of the jobs that is shown, from 0 to 1: the same jobs from start to end.
    """

    def __init__(
        self, client: redis.Redis, *, hostname: str, channel: str, clock: Callable[[], int], share: float = 1.0
    ) -> None:
        self._connection: Any = None
        #: Whether the reply to what was published last is still to be read.
        self._unread = False
        #: Whether it was asked if anyone listens to the events of this claim, and whether anyone does.
        self._asked, self._anyone = False, True
        self._pool, self._channel, self._clock, self._share = client.connection_pool, channel, clock, share
        self._about = {
            "hostname": hostname,
            "pid": os.getpid(),
            # Celery's sign: hours to be added to local time to get UTC.
            "utcoffset": (time.altzone if time.localtime().tm_isdst else time.timezone) // 3600,
        }

    def claimed(self, jobs: int) -> None:
        """So many jobs were claimed: ask whether anyone listens. The answer comes while they are read."""
        self._asked = jobs >= _ASK_FROM
        if self._asked:
            self._publish(b"[]")

    def started(self, jobs: Sequence[Job], now: datetime) -> None:
        """Jobs were received and started."""
        self._anyone = not self._asked or self._reached() > 0
        if not self._anyone:
            return
        events: list[dict[str, Any]] = []
        for job in jobs:
            if not self._shown(job.id):
                continue
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
        if not self._anyone:
            return
        stands: dict[str, Outcome] = {outcome.job: Cancelled(job=outcome.job) for outcome in outcomes}
        stands.update((outcome.job, outcome) for outcome in published)
        self._send([self._end(stands[job], seconds) for job in stands if self._shown(job)], now)

    def retried(self, failures: Sequence[Failure], now: datetime) -> None:
        """Jobs run again later; each failure is what this run would have ended its job with."""
        if not self._anyone:
            return
        self._send(
            [
                {
                    "type": "task-retried",
                    "uuid": failure.job,
                    "exception": f"{failure.error}: {failure.message}",
                    "traceback": failure.traceback or "",
                }
                for failure in failures
                if self._shown(failure.job)
            ],
            now,
        )

    def _shown(self, job: str) -> bool:
        return self._share >= 1 or zlib.crc32(job.encode()) < self._share * 2**32

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
                    "name": TASK,  # a job nobody could read, or tried too often, was never told as received
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
        if events:
            about = {**self._about, "timestamp": now.timestamp(), "clock": self._clock()}
            self._publish(msgspec.json.encode([{**event, **about} for event in events]))

    def _publish(self, body: bytes) -> None:
        """Publish a group of events without waiting for the reply: the job waits meanwhile."""
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
        try:
            self._reached()
            if self._connection is None:
                self._connection = self._pool.get_connection()
            self._connection.send_command("PUBLISH", self._channel, msgspec.json.encode(message))
            self._unread = True
        except redis.RedisError:
            self._drop_connection()

    def _reached(self) -> int:
        """How many clients got what was published last, as far as is known: 1 where it is not."""
        if not self._unread:
            return 1
        self._unread = False
        try:
            return int(self._connection.read_response())
        except redis.RedisError:
            self._drop_connection()
            return 1

    def _drop_connection(self) -> None:
        """Take another next time: one from the pool asks Sentinel where the primary is, one mended does not."""
        connection, self._connection, self._unread = self._connection, None, False
        if connection is not None:
            connection.disconnect()
            self._pool.release(connection)
