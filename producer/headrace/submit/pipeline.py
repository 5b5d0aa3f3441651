"""Jobs handed in call by call: while Redis takes the ones, the next are packed.

    pack ─> send ─> pack the next ─> read the reply ─> send ─> ...

One call at a time is under way, and none is sent before all jobs of the one before are taken: where one is
refused, the jobs behind it are not enqueued.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from headrace.connection.commands import Command, Operation, PendingReply, Pipelined, PipelinedOperation, Script
from headrace.errors import JobConflict, QueueFull
from headrace.settings import Settings
from headrace.submit import enqueue
from headrace.submit.enqueue import Accepted, EncodedJob, JobEncoder
from headrace.wire.keys import Keys, queue_name

_ENQUEUE = Script(enqueue.SCRIPT)


class SubmissionPipeline:
    """The jobs a caller submits together. `now` is None where ids of our own tell when that was."""

    def __init__(self, keys: Keys, settings: Settings, now: datetime | None) -> None:
        self._keys, self._settings = keys, settings
        self._now_ms = int(now.timestamp() * 1000) if now is not None else None
        self._ahead: tuple[JobEncoder, Sequence[EncodedJob], PendingReply] | None = None
        #: The ids taken so far.
        self.accepted: list[str] = []

    def send_one(self, packer: JobEncoder, packed: EncodedJob) -> Operation[None]:
        """Hand one job in. Raises QueueFull and JobConflict."""
        self._taken(packer, [packed], (yield self._call(packer, [packed])))

    def send(self, packer: JobEncoder, packed: Sequence[EncodedJob]) -> PipelinedOperation[None]:
        """Hand jobs in as soon as those before are taken. Raises what is wrong with these, as `settle`."""
        yield from self.settle()
        self._ahead = packer, packed, (yield Pipelined(self._call(packer, packed)))

    def settle(self) -> PipelinedOperation[None]:
        """Hear what became of those that were sent. Raises QueueFull and JobConflict."""
        if self._ahead is not None:
            (packer, packed, sent), self._ahead = self._ahead, None
            self._taken(packer, packed, (yield sent))

    def drop(self) -> None:
        """Hear no more of it: the caller was interrupted."""
        if self._ahead is not None:
            self._ahead[2].drop()

    def _call(self, packer: JobEncoder, packed: Sequence[EncodedJob]) -> Command:
        settings = self._settings
        return _ENQUEUE(
            *enqueue.call(
                self._keys,
                packer,
                packed,
                limit=settings.queue_limit,
                ttl=settings.job_ttl,
                now_ms=self._now_ms,
            )
        )

    def _taken(self, packer: JobEncoder, packed: Sequence[EncodedJob], replies: list[int]) -> None:
        if not any(replies):
            self.accepted += [one.job for one in packed]
            return
        conflict: str | None = None
        full = False
        for one, reply in zip(packed, replies, strict=True):
            match Accepted(reply):
                case Accepted.NEW | Accepted.KNOWN:
                    self.accepted.append(one.job)
                case Accepted.CONFLICT:
                    conflict = conflict or one.job
                case Accepted.FULL:
                    full = True
        if conflict is not None:
            raise JobConflict(
                f"job {conflict} exists and was asked for something else; "
                "an id belongs to one model, version, method and input"
            )
        if full:
            raise QueueFull(
                f"queue {queue_name(packer.template.model)} holds {self._settings.queue_limit:,} jobs, the limit "
                "of HEADRACE_QUEUE_LIMIT; wait, run more workers, or raise it",
                accepted=tuple(self.accepted),
            )
