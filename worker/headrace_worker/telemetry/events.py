"""Celery's task events for every job of a claim, so that Flower and exporters see jobs instead of claims.

The events of a claim are published as one group, in Celery's own form for groups (`buffer_group` of
`celery.events.dispatcher`, routing key `task.multi`, and `celery.events.receiver`).

Redis stores no events: only clients that are subscribed now receive them, and the reply to each PUBLISH is their
number. When nobody was subscribed at the last PUBLISH, no events are made for a moment. Before a large claim an
empty group is published to learn the number, if the last reply is too old: making the events of a claim takes as
long as parsing its messages.

A job of a bulk run has the field `queue` too, and no event for each of its rows.
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

from headrace.wire.bulk import BULK_TASK, describe_step
from headrace.wire.message import describe_job
from headrace.wire.outcome import Cancelled, Outcome
from headrace.wire.queues import is_bulk_queue, model_name
from headrace_worker.failures import make_failure
from headrace_worker.telemetry.job_runs import count_earlier_runs, count_runs, find_waiting_since, task_name
from headrace_worker.telemetry.task_events import (
    Sender,
    TaskEnded,
    TaskEvent,
    TaskFailed,
    TaskReceived,
    TaskRevoked,
    TaskStarted,
    end_event,
    retry_event,
)

if TYPE_CHECKING:
    from headrace.wire.message import Job
    from headrace_worker.execution.claimed_job import ClaimedJob
    from headrace_worker.execution.report import ClaimReport

#: Jobs from which on a claim is worth an empty group first: for fewer, the reply takes as long as the events.
_PROBE_MIN_JOBS = 16
#: Seconds for which the number of subscribers is trusted.
_SUBSCRIBERS_TTL_SECONDS = 0.5


class Events:
    """The publisher of a pool process's job events, over a connection of its own.

    `channel` is Celery's event channel, `clock` returns Celery's logical clock. `version_of` returns the version a
    job runs on, None if none serves. `share` is the share of the jobs that have events, from 0 to 1; a job has all
    of its events or none.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        hostname: str,
        channel: str,
        clock: Callable[[], int],
        version_of: Callable[[Job], str | None],
        share: float = 1.0,
    ) -> None:
        self._connection: Any = None
        #: The last group of events, while the reply to its PUBLISH is unread.
        self._unconfirmed: bytes | None = None
        #: True if an empty group was published for this claim, and if anybody is subscribed to its events.
        self._probed, self._has_subscribers = False, True
        #: The number of clients that received the last group, as far as is known, and its monotonic time.
        self._subscribers, self._published_at = 1, float("-inf")
        self._pool, self._channel, self._clock, self._share = client.connection_pool, channel, clock, share
        self._version_of = version_of
        is_dst = time.localtime().tm_isdst
        #: The first fields of a `Sender`.
        self._process = hostname, os.getpid(), (time.altzone if is_dst else time.timezone) // 3600

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
        sender, events = self._sender(now), list[TaskEvent]()
        for claimed in jobs:
            job = claimed.job
            if not self._is_selected(job.id):
                continue
            version, earlier_runs = self._version_of(job), count_earlier_runs(claimed)
            waiting_since = find_waiting_since(claimed)
            if job.step is None:
                description = describe_job(job.model, job.version, len(job.instances))
            else:
                description = describe_step(job.model, job.step)
            received = TaskReceived(
                *sender,
                job.id,
                job.model,
                version,
                task_name(claimed),
                description,
                job.id,
                earlier_runs,
                earlier_runs + 1,
                None if job.expires is None else job.expires.isoformat(),
            )
            started = TaskStarted(*sender, job.id, job.model, version)
            if waiting_since is not None:
                received.waiting_since = waiting_since
            if job.step is not None:
                received.queue = started.queue = job.queue
            events += (received, started)
        self._send(events)

    def on_claim_finished(self, report: ClaimReport) -> None:
        """Publish the jobs' outcomes, and which jobs are retried.

        A job whose outcome was decided here but not published was cancelled while it ran. One that was cancelled
        before has no other event of this claim.
        """
        if report.published is None or not (self._has_subscribers or self._is_stale):
            return  # a client that subscribed during a long claim receives the end of its jobs
        decisions, now = report.decisions, report.server_time(report.predicted_at)
        outcomes: dict[str, Outcome] = {job: Cancelled(job=job) for job in decisions.outcomes}
        outcomes.update((outcome.job, outcome) for outcome in report.published)
        seconds = report.predicted_at - report.started_at
        model, versions = model_name(report.claim.lease.queue), self._versions(report)
        runs = {result.claimed.job.id: count_runs(result) for result in (*report.parsed.finished, *report.results)}
        sender, events = self._sender(now), list[TaskEnded]()
        for job, version in versions.items():
            if job in outcomes:
                events.append(
                    end_event(sender, outcomes[job], seconds=seconds, model=model, version=version, runs=runs[job])
                )
        for failed in decisions.retried:
            job = (claimed := failed.admitted.claimed).job.id
            if job in versions:
                failure = make_failure(failed.error, claimed.job)
                events.append(retry_event(sender, failure, model=model, version=versions[job], runs=runs[job]))
        for claimed in report.cancelled:
            if self._is_selected(job := claimed.job.id):
                cancelled = Cancelled(job=job)
                events.append(end_event(sender, cancelled, seconds=0.0, model=model, version=None, runs=0))
        if is_bulk_queue(queue := report.claim.lease.queue):
            for event in events:
                event.queue = queue
                if isinstance(event, TaskFailed | TaskRevoked):
                    event.name = BULK_TASK
        self._send(events)

    def _versions(self, report: ClaimReport) -> dict[str, str | None]:
        """Return the version of each job that has events, by its id."""
        return {
            job.id: self._version_of(job) if result.admitted is None else result.admitted.model.manifest.version
            for result in (*report.parsed.finished, *report.results)
            if self._is_selected((job := result.claimed.job).id)
        }

    @property
    def _is_stale(self) -> bool:
        """True if the last PUBLISH is too long ago to know the number of subscribers."""
        return time.monotonic() - self._published_at > _SUBSCRIBERS_TTL_SECONDS

    def _is_selected(self, job: str) -> bool:
        return self._share >= 1 or zlib.crc32(job.encode()) < self._share * 2**32

    def _sender(self, now: datetime) -> Sender:
        return (*self._process, now.timestamp(), self._clock())

    def _send(self, events: Sequence[TaskEvent]) -> None:
        if events:
            self._publish(msgspec.json.encode(events))

    def _publish(self, body: bytes) -> None:
        """Publish a group of events without waiting for the reply, because the jobs would wait too."""
        message = {
            "body": base64.b64encode(body).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"hostname": self._process[0]},
            "properties": {
                "delivery_mode": 1,
                "delivery_info": {"exchange": "celeryev", "routing_key": "task.multi"},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid.uuid4()),
            },
        }
        self._read_reply()
        self._transmit(msgspec.json.encode(message))

    def _transmit(self, message: bytes) -> None:
        """Send a group. An error must not affect the jobs."""
        try:
            # Redis or a proxy may have closed the connection while no job ran. That shows before a group is sent.
            if self._connection is not None and self._is_stale and _is_closed(self._connection):
                self._drop_connection()
            if self._connection is None:
                self._connection = self._pool.get_connection()
            self._connection.send_command("PUBLISH", self._channel, message)
            self._unconfirmed, self._published_at = message, time.monotonic()
        except redis.RedisError:
            self._drop_connection()

    def _read_reply(self) -> None:
        """Read the number of clients that received the last group.

        A group whose connection was lost is sent once more, so that a job does not lack its first events.
        """
        message, self._unconfirmed = self._unconfirmed, None
        if message is None:
            return
        try:
            self._subscribers = int(self._connection.read_response())
        except redis.ConnectionError:
            self._drop_connection()
            self._transmit(message)
            self._read_subscribers()
        except redis.RedisError:
            self._drop_connection()

    def _read_subscribers(self) -> None:
        """Read the reply to a group that was sent again."""
        if self._unconfirmed is None:
            return
        self._unconfirmed = None
        try:
            self._subscribers = int(self._connection.read_response())
        except redis.RedisError:
            self._drop_connection()

    def _drop_connection(self) -> None:
        """Return the connection to the pool; a new one asks Sentinel for the primary, a repaired one does not."""
        connection, self._connection, self._unconfirmed = self._connection, None, None
        self._subscribers, self._published_at = 1, float("-inf")
        if connection is not None:
            connection.disconnect()
            self._pool.release(connection)


def _is_closed(connection: Any) -> bool:
    """Return whether a connection that awaits no reply was closed by its other end."""
    try:
        return bool(connection.can_read())
    except redis.RedisError:
        return True
