"""Celery's events for every job of a claim, so that Flower and exporters see jobs, not claims.

Celery sends an event at a time; a claim's are sent as one group, in the form Celery has for groups. Source:
`celery.events.dispatcher` (`buffer_group`, routing key `task.multi`) and `celery.events.receiver`.

An event is told to those who listen now, and kept for nobody. How many that are is the reply to each publish. For
a moment after nobody did, no events are made; and of a large claim it is asked first, where the last reply is old:
making its events takes as long as opening its messages.
"""

from __future__ import annotations

import base64
import os
import time
import uuid
import zlib
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
import redis

from headrace.wire.attempts import select_counted
from headrace.wire.keys import TASK
from headrace.wire.message import describe_job
from headrace.wire.outcome import Cancelled, Expired, Failure, Outcome, Success
from headrace_worker.execution.failures import failure_from_error

if TYPE_CHECKING:
    from headrace_worker.execution.claimed_job import ClaimedJob
    from headrace_worker.execution.report import ClaimReport

#: For fewer jobs it is not asked whether anyone listens: the answer would take as long as the events.
_ASK_FROM = 16
#: Seconds for which it is believed how many listen.
_BELIEVED = 0.5


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
        #: How many heard what was published last, as far as is known, and when (monotonic) that was.
        self._listeners, self._published = 1, float("-inf")
        self._pool, self._channel, self._clock, self._share = client.connection_pool, channel, clock, share
        self._about = {
            "hostname": hostname,
            "pid": os.getpid(),
            # Celery's sign: hours to be added to local time to get UTC.
            "utcoffset": (time.altzone if time.localtime().tm_isdst else time.timezone) // 3600,
        }

    def on_claim_received(self, jobs: int) -> None:
        """So many jobs were claimed: ask, if need be, who listens. The answer comes while they are read."""
        self._read_reply()
        self._anyone = self._listeners > 0 or self._is_old_news
        self._asked = jobs >= _ASK_FROM and self._is_old_news
        if self._asked:
            self._publish(b"[]")

    def on_jobs_started(self, jobs: Sequence[ClaimedJob], now: datetime) -> None:
        """Publish that these jobs were received and started."""
        if self._asked:
            self._read_reply()
            self._anyone = self._listeners > 0
        if not self._anyone:
            return
        events: list[dict[str, Any]] = []
        for claimed in jobs:
            job = claimed.job
            if not self._shown(job.id):
                continue
            events += [
                {
                    "type": "task-received",
                    "uuid": job.id,
                    "name": TASK,
                    "args": describe_job(job.model, job.version, len(job.instances)),
                    "kwargs": "{}",
                    "root_id": job.id,
                    "parent_id": None,
                    "retries": len(select_counted(claimed.attempts)) if claimed.attempts else 0,
                    "eta": None,
                    "expires": job.expires and job.expires.isoformat(),
                },
                {"type": "task-started", "uuid": job.id},
            ]
        self._send(events, now)

    def on_claim_finished(self, report: ClaimReport) -> None:
        """Jobs have their outcomes, or run again later.

        An outcome that was not published came second: its job was cancelled while it ran.
        """
        if report.published is None or not (self._anyone or self._is_old_news):
            return  # of a claim that ran for long, who came meanwhile hears the end
        decisions, now = report.decisions, report.server_time(report.predicted_at)
        stands: dict[str, Outcome] = {job: Cancelled(job=job) for job in decisions.outcomes}
        stands.update((outcome.job, outcome) for outcome in report.published)
        seconds = report.predicted_at - report.started_at
        # Celery's event of a failure has no place for what ran; a field more harms nobody.
        ran = {letter.id: letter.version for letter, _ in decisions.letters}
        events = [self._end(stands[job], seconds, ran.get(job)) for job in stands if self._shown(job)]
        events += [
            _retry(failure_from_error(failed.error, job))
            for failed in decisions.retried
            if self._shown((job := failed.admitted.claimed.job).id)
        ]
        self._send(events, now)

    @property
    def _is_old_news(self) -> bool:
        """Whether it is too long ago that anybody could have heard us to say who listens now."""
        return time.monotonic() - self._published > _BELIEVED

    def _shown(self, job: str) -> bool:
        return self._share >= 1 or zlib.crc32(job.encode()) < self._share * 2**32

    def _end(self, outcome: Outcome, seconds: float, version: str | None) -> dict[str, Any]:
        match outcome:
            case Success(prediction=made):
                result = describe_job(made.model, made.version, len(made.predictions))
                return {"type": "task-succeeded", "uuid": outcome.job, "result": result, "runtime": seconds}
            case Failure():
                said = f"{outcome.error}: {outcome.message}"
                return {
                    "type": "task-failed",
                    "uuid": outcome.job,
                    "name": TASK,  # a job nobody could read, or tried too often, was never told as received
                    "exception": said,
                    "traceback": outcome.traceback or said,
                    "runtime": seconds,
                    "version": version,
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
            self._read_reply()
            if self._connection is None:
                self._connection = self._pool.get_connection()
            self._connection.send_command("PUBLISH", self._channel, msgspec.json.encode(message))
            self._unread, self._published = True, time.monotonic()
        except redis.RedisError:
            self._drop_connection()

    def _read_reply(self) -> None:
        """Read how many clients heard what was published last."""
        if not self._unread:
            return
        self._unread = False
        try:
            self._listeners = int(self._connection.read_response())
        except redis.RedisError:
            self._drop_connection()

    def _drop_connection(self) -> None:
        """Take another next time: one from the pool asks Sentinel where the primary is, one mended does not."""
        connection, self._connection, self._unread = self._connection, None, False
        self._listeners, self._published = 1, float("-inf")
        if connection is not None:
            connection.disconnect()
            self._pool.release(connection)


def _retry(failure: Failure) -> dict[str, Any]:
    """The event of a job that runs again; the failure is what this run would have ended it with."""
    return {
        "type": "task-retried",
        "uuid": failure.job,
        "exception": f"{failure.error}: {failure.message}",
        "traceback": failure.traceback or "",
    }
