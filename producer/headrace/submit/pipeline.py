"""Enqueue the jobs of one submit call by call: while Redis takes the jobs of one call, the next are encoded.

    encode ─> send ─> encode the next ─> read the reply ─> send ─> ...

One call at a time is in flight, and the next is sent only if Redis accepted all jobs of the call before it: the
jobs behind a refused job are not enqueued.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from headrace.connection.commands import Operation, PendingReply, Pipeline, Pipelined, PipelinedOperation
from headrace.errors import JobConflict, QueueFull
from headrace.settings import Settings
from headrace.submit.enqueue import Enqueuer, EnqueueResult, forget_command
from headrace.wire.job_encoder import EncodedJob, JobEncoder
from headrace.wire.keys import Keys
from headrace.wire.queues import queue_name

#: Returns the records of the jobs that are lost, by id. It adds ids to the second argument, of jobs that are not.
FindLost = Callable[[Sequence[str], set[str]], Operation[dict[str, bytes]]]


class SubmissionPipeline:
    """The jobs a caller submits together, at `submitted_ms`; None if the ids of the jobs hold that time.

    `find_lost` finds the lost jobs.
    """

    def __init__(self, keys: Keys, settings: Settings, submitted_ms: int | None, *, find_lost: FindLost) -> None:
        self._keys, self._settings, self._submitted_ms = keys, settings, submitted_ms
        self._find_lost = find_lost
        #: Ids of jobs that were met in their queues.
        self._present: set[str] = set()
        self._in_flight: tuple[Enqueuer, Sequence[EncodedJob], PendingReply] | None = None
        #: The ids of the jobs accepted so far.
        self.accepted: list[str] = []

    def accept(self, enqueuer: Enqueuer, jobs: Sequence[EncodedJob], results: list[int]) -> Operation[None]:
        """Decide about the results of a call that enqueued jobs. Raises QueueFull and JobConflict."""
        self._check(enqueuer.encoder, jobs, (yield from self._replace_lost(enqueuer, jobs, results)))

    def send(self, enqueuer: Enqueuer, jobs: Sequence[EncodedJob]) -> PipelinedOperation[None]:
        """Enqueue jobs once those in flight are accepted. Raises as `finish` does for the jobs in flight."""
        yield from self.finish()
        self._in_flight = enqueuer, jobs, (yield Pipelined(enqueuer.command(jobs, self._submitted_ms)))

    def finish(self) -> PipelinedOperation[None]:
        """Read the reply for the jobs in flight. Raises QueueFull and JobConflict."""
        if self._in_flight is not None:
            (enqueuer, jobs, pending), self._in_flight = self._in_flight, None
            yield from self.accept(enqueuer, jobs, (yield pending))

    def _replace_lost(
        self, enqueuer: Enqueuer, jobs: Sequence[EncodedJob], results: list[int]
    ) -> Operation[list[int]]:
        """Enqueue those repeated jobs that are lost once more, and return the results with theirs."""
        if not any(results):  # all are NEW
            return results
        repeated = [job for job, result in zip(jobs, results, strict=True) if result == EnqueueResult.REPEATED]
        if not repeated:
            return results
        lost = yield from self._find_lost([job.job for job in repeated], self._present)
        if not lost:
            return results
        yield Pipeline(tuple(forget_command(self._keys, job, record) for job, record in lost.items()))
        again = [job for job in repeated if job.job in lost]
        command = enqueuer.command(again, self._submitted_ms)
        new_results = dict(zip((job.job for job in again), (yield command), strict=True))
        return [new_results.get(job.job, result) for job, result in zip(jobs, results, strict=True)]

    def drop(self) -> None:
        """Discard the reply for the jobs in flight: the caller was interrupted."""
        if self._in_flight is not None:
            self._in_flight[2].drop()

    def _check(self, encoder: JobEncoder, jobs: Sequence[EncodedJob], results: list[int]) -> None:
        if not any(results):  # all are NEW
            self.accepted += [job.job for job in jobs]
            return
        conflict: str | None = None
        full = listeners_full = False
        for job, result in zip(jobs, results, strict=True):
            match EnqueueResult(result):
                case EnqueueResult.NEW | EnqueueResult.REPEATED:
                    self.accepted.append(job.job)
                case EnqueueResult.CONFLICT:
                    conflict = conflict or job.job
                case EnqueueResult.FULL:
                    full = True
                case EnqueueResult.LISTENERS_FULL:
                    listeners_full = True
        if conflict is not None:
            raise JobConflict(
                f"job {conflict} exists with another input; "
                "an id belongs to one model, version, method and input: use another id"
            )
        if listeners_full:
            raise QueueFull(
                f"the listeners of {encoder.template.listen!r} have not handled {self._settings.listen_limit:,} "
                "ended jobs, the limit of HEADRACE_LISTEN_LIMIT; run more listeners, or raise it",
                accepted=tuple(self.accepted),
            )
        if full:
            raise QueueFull(
                f"queue {queue_name(encoder.template.model)} holds {self._settings.queue_limit:,} jobs, the limit "
                "of HEADRACE_QUEUE_LIMIT, delayed ones included; wait, run more workers, or raise it",
                accepted=tuple(self.accepted),
            )
