"""Celery's task events for every job of a claim, so that Flower and exporters see jobs instead of claims.

The events of a claim are published as one group, in Celery's own form for groups (`buffer_group` of
`celery.events.dispatcher`, routing key `task.multi`, and `celery.events.receiver`).

Redis stores no events: only clients that are subscribed now receive them, and the reply to each PUBLISH is their
number. When nobody was subscribed at the last PUBLISH, no events are made for a moment. Before a large claim an
empty group is published to learn the number, if the last reply is too old: making the events of a claim takes as
long as parsing its messages.
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
from headrace_worker.execution.failures import make_failure

if TYPE_CHECKING:
    from headrace_worker.execution.claimed_job import ClaimedJob
    from headrace_worker.execution.report import ClaimReport

#: Jobs from which on a claim is worth an empty group first: for fewer, the reply takes as long as the events.
_PROBE_MIN_JOBS = 16
#: Seconds for which the number of subscribers is trusted.
_SUBSCRIBERS_TTL_SECONDS = 0.5


class Events:
    """The publisher of a pool process's job events, over a connection of its own.

    `channel` is Celery's event channel, `clock` returns Celery's logical clock. `share` is the share of the jobs
    that have events, from 0 to 1; a job has all of its events or none.
    """

    def __init__(
        self, client: redis.Redis, *, hostname: str, channel: str, clock: Callable[[], int], share: float = 1.0
    ) -> None:
        self._connection: Any = None
        #: True while the reply to the last PUBLISH is unread.
        self._reply_pending = False
        #: True if an empty group was published for this claim, and if anybody is subscribed to its events.
        self._probed, self._has_subscribers = False, True
        #: The number of clients that received the last group, as far as is known, and its monotonic time.
        self._subscribers, self._published_at = 1, float("-inf")
        self._pool, self._channel, self._clock, self._share = client.connection_pool, channel, clock, share
        self._common_fields = {
            "hostname": hostname,
            "pid": os.getpid(),
            # Celery's sign: the hours to add to local time to get UTC.
            "utcoffset": (time.altzone if time.localtime().tm_isdst else time.timezone) // 3600,
        }

    def on_claim_received(self, jobs: int) -> None:
        """Find out whether anybody is subscribed, before `jobs` messages are parsed."""
        self._read_reply()
        self._has_subscribers = self._subscribers > 0 or self._is_stale
        self._probed = jobs >= _PROBE_MIN_JOBS and self._is_stale
        if self._probed:
            self._publish(b"[]")

    def on_jobs_started(self, jobs: Sequence[ClaimedJob], now: datetime) -> None:
        """Publish that these jobs were received and started."""
        if self._probed:
            self._read_reply()
            self._has_subscribers = self._subscribers > 0
        if not self._has_subscribers:
            return
        events: list[dict[str, Any]] = []
        for claimed in jobs:
            job = claimed.job
            if not self._is_selected(job.id):
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
        """Publish the jobs' outcomes, and which jobs are retried.

        A job whose outcome was decided here but not published was cancelled while it ran.
        """
        if report.published is None or not (self._has_subscribers or self._is_stale):
            return  # a client that subscribed during a long claim receives the end of its jobs
        decisions, now = report.decisions, report.server_time(report.predicted_at)
        outcomes: dict[str, Outcome] = {job: Cancelled(job=job) for job in decisions.outcomes}
        outcomes.update((outcome.job, outcome) for outcome in report.published)
        seconds = report.predicted_at - report.started_at
        # `version` is not a field of Celery's event; receivers ignore further fields.
        versions = {letter.id: letter.version for letter, _ in decisions.letters}
        events = [
            self._end_event(outcomes[job], seconds, versions.get(job))
            for job in outcomes
            if self._is_selected(job)
        ]
        events += [
            _retry_event(make_failure(failed.error, job))
            for failed in decisions.retried
            if self._is_selected((job := failed.admitted.claimed.job).id)
        ]
        self._send(events, now)

    @property
    def _is_stale(self) -> bool:
        """True if the last PUBLISH is too long ago to know the number of subscribers."""
        return time.monotonic() - self._published_at > _SUBSCRIBERS_TTL_SECONDS

    def _is_selected(self, job: str) -> bool:
        return self._share >= 1 or zlib.crc32(job.encode()) < self._share * 2**32

    def _end_event(self, outcome: Outcome, seconds: float, version: str | None) -> dict[str, Any]:
        match outcome:
            case Success(prediction=prediction):
                result = describe_job(prediction.model, prediction.version, len(prediction.predictions))
                return {"type": "task-succeeded", "uuid": outcome.job, "result": result, "runtime": seconds}
            case Failure():
                exception = f"{outcome.error}: {outcome.message}"
                return {
                    "type": "task-failed",
                    "uuid": outcome.job,
                    "name": TASK,  # a job that failed without running has no task-received event
                    "exception": exception,
                    "traceback": outcome.traceback or exception,
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
            fields = {**self._common_fields, "timestamp": now.timestamp(), "clock": self._clock()}
            self._publish(msgspec.json.encode([{**event, **fields} for event in events]))

    def _publish(self, body: bytes) -> None:
        """Publish a group of events without waiting for the reply, because the jobs would wait too."""
        message = {
            "body": base64.b64encode(body).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"hostname": self._common_fields["hostname"]},
            "properties": {
                "delivery_mode": 1,
                "delivery_info": {"exchange": "celeryev", "routing_key": "task.multi"},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid.uuid4()),
            },
        }
        # An error here must not affect the jobs.
        try:
            self._read_reply()
            if self._connection is None:
                self._connection = self._pool.get_connection()
            self._connection.send_command("PUBLISH", self._channel, msgspec.json.encode(message))
            self._reply_pending, self._published_at = True, time.monotonic()
        except redis.RedisError:
            self._drop_connection()

    def _read_reply(self) -> None:
        """Read the number of clients that received the last group."""
        if not self._reply_pending:
            return
        self._reply_pending = False
        try:
            self._subscribers = int(self._connection.read_response())
        except redis.RedisError:
            self._drop_connection()

    def _drop_connection(self) -> None:
        """Return the connection to the pool; a new one asks Sentinel for the primary, a repaired one does not."""
        connection, self._connection, self._reply_pending = self._connection, None, False
        self._subscribers, self._published_at = 1, float("-inf")
        if connection is not None:
            connection.disconnect()
            self._pool.release(connection)


def _retry_event(failure: Failure) -> dict[str, Any]:
    """Return the event of a job that is retried. `failure` describes the error of this attempt."""
    return {
        "type": "task-retried",
        "uuid": failure.job,
        "exception": f"{failure.error}: {failure.message}",
        "traceback": failure.traceback or "",
    }
