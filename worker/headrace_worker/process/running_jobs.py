"""The jobs that the claims of this worker run, and the thread that marks them as started.

Only claims that have run for a round are marked: quick jobs cost nothing, neither here nor in Redis.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import redis
from celery.worker import state

from headrace.connection.commands import Command, execute
from headrace.results.started import MARK_SECONDS, encode_mark, mark_command, unmark_command
from headrace.wire.attempts import decode_queued_message
from headrace.wire.foreign_message import scan_id
from headrace.wire.keys import Keys
from headrace.wire.queues import holds_histories
from headrace_worker.telemetry.loops import LoopHealth

#: Seconds between two looks at the claims that run.
_ROUND_SECONDS = 0.5
#: Seconds after which a round is late, and after which marks are renewed.
LATE_SECONDS, _RENEW_SECONDS = 60.0, MARK_SECONDS / 3
#: Jobs of one call of a script.
_JOBS_PER_CALL = 500


class MarkedClaim(msgspec.Struct, frozen=True):
    """A claim whose jobs are marked."""

    #: The mark of each job, by id.
    marks: dict[str, bytes]
    #: The monotonic time after which the marks are renewed.
    renew_at: float


class StartedMarker:
    """Marks the jobs of claims that run for longer than a moment. `connect` returns the Redis connection."""

    def __init__(self, connect: Callable[[], redis.Redis], keys: Keys, loop: LoopHealth) -> None:
        self._connect, self._keys, self._loop = connect, keys, loop
        self._hostname = ""
        #: The ids of the requests that ran in the last round, and the claims that are marked, by their id.
        self._running: set[str] = set()
        self._marked: dict[str, MarkedClaim] = {}
        self._stop = threading.Event()

    def start(self, hostname: str) -> None:
        """Mark jobs from now on, in a thread. `hostname` is the worker's name, as Celery has it."""
        self._hostname = hostname
        threading.Thread(
            target=self._loop.run_rounds,
            args=(self._run_round, self._stop, _ROUND_SECONDS),
            name="headrace-started",
            daemon=True,
        ).start()

    def stop(self) -> None:
        """Stop marking. The marks expire, or are replaced by outcomes."""
        self._stop.set()

    def _run_round(self) -> None:
        requests = {request.id: request for request in list(state.active_requests)}
        for claim in self._marked.keys() - requests.keys():
            self._unmark(self._marked.pop(claim))
        for claim in self._running & requests.keys():
            marked = self._marked.get(claim)
            if marked is None:
                jobs = find_jobs(requests[claim])
                self._mark(claim, {job: encode_mark(job, self._hostname, claim) for job in jobs})
            elif marked.renew_at <= time.monotonic():
                self._mark(claim, marked.marks)
        self._running = set(requests)

    def _mark(self, claim: str, marks: dict[str, bytes]) -> None:
        self._marked[claim] = MarkedClaim(marks, time.monotonic() + _RENEW_SECONDS)
        self._execute(mark_command, marks)

    def _unmark(self, marked: MarkedClaim) -> None:
        """Remove the marks of jobs without an outcome: they run again later, and wait until then."""
        self._execute(unmark_command, marked.marks)

    def _execute(self, make_command: Callable[[Keys, dict[str, bytes]], Command], marks: dict[str, bytes]) -> None:
        items = list(marks.items())
        for first in range(0, len(items), _JOBS_PER_CALL):
            execute(self._connect(), make_command(self._keys, dict(items[first : first + _JOBS_PER_CALL])))


def find_jobs(request: Any) -> Iterator[str]:
    """Yield the ids of the jobs of Celery's request for a claim, none for an ordinary task.

    The messages are searched, not parsed.
    """
    claim = request.message.decode_claim()
    if claim is None:
        return
    for source, queued_messages in claim.by_source():
        for queued_message in queued_messages:
            message = decode_queued_message(queued_message)[1] if holds_histories(source) else queued_message
            if job := scan_id(message):
                yield job
