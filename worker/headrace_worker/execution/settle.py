"""What becomes of each job of a claim: an outcome, with a dead letter if it is a failure, or another run.

    predict ─> [settle] ─> deliver

A pure decision: the clock and the chance are arguments, and what is decided happens in `deliver`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from headrace.catalog.aliases import is_version
from headrace.errors import InvalidInput
from headrace.wire.attempts import REQUEUED, Attempt, decode_queued_message, encode_queued_message
from headrace.wire.dead_letter import DeadLetter, malformed_letter
from headrace.wire.message import Job
from headrace.wire.outcome import Failure, Outcome, Success
from headrace_worker.execution.batching import Admitted, NotRunnableHere
from headrace_worker.execution.failures import failure_of
from headrace_worker.execution.predict import FailedRun
from headrace_worker.execution.retry import Retry, cause_of, decide, requeue


class ClaimDecisions(msgspec.Struct, frozen=True, kw_only=True):
    """Where everything of a claim goes."""

    #: By job id. Of two outcomes of one id the first counts.
    outcomes: dict[str, Outcome] = {}
    #: The dead letters, each with its message.
    letters: list[tuple[DeadLetter, bytes]] = []
    #: Frames that wait in Redis, for so many milliseconds.
    delayed: list[tuple[int, bytes]] = []
    #: The errors that ended a job, for Sentry; bad input is no error of a model.
    errors: list[tuple[BaseException, Admitted]] = []
    #: The jobs that run again, and what their run ended in, for events.
    retried: list[tuple[Job, BaseException]] = []


class OutcomeDecider(msgspec.Struct, frozen=True, kw_only=True):
    """Settles the jobs of one claim."""

    #: The queue they came from, who ran them, and on which host.
    queue: str
    owner: str
    worker: str
    #: The moment, the server's unix milliseconds; and random numbers from 0 to 1.
    now_ms: int
    chance: Callable[[], float]
    decisions: ClaimDecisions = msgspec.field(default_factory=ClaimDecisions)

    def add_results(
        self,
        jobs: Iterable[Job],
        frames: Iterable[bytes],
        results: Iterable[Outcome | FailedRun | NotRunnableHere],
    ) -> None:
        """Settle what was run: the jobs, their frames and their results, in the same order."""
        outcomes = self.decisions.outcomes
        results = list(results)
        for job, frame, result in zip(jobs, frames, results, strict=True):
            if type(result) is Success:
                outcomes.setdefault(job.id, result)
            elif isinstance(result, FailedRun):
                self._raised(job, frame, result, company=len(results))
            elif isinstance(result, NotRunnableHere):
                self._withheld(job, frame, result)
            else:
                self.add_finished(job, frame, result)

    def add_finished(self, job: Job, frame: bytes, outcome: Outcome, *, version: str | None = None) -> None:
        """Settle a job that has its outcome; `version` is that of the model that ran."""
        if self.decisions.outcomes.setdefault(job.id, outcome) is not outcome or not isinstance(outcome, Failure):
            return
        attempts, message = decode_queued_message(frame)
        found = DeadLetter(
            id=job.id,
            model=job.model or None,
            version=version or job.version,
            queue=self.queue,
            reason=outcome.reason,
            error=outcome.error,
            module=outcome.module,
            message=outcome.message,
            traceback=outcome.traceback,
            instances=len(job.instances) or None,
            worker=self.worker,
            attempts=attempts,
            metadata=job.metadata,
        )
        self.decisions.letters.append((found, message))

    def add_malformed(self, frame: bytes, error: Exception) -> None:
        """Settle bytes that are no job: there is nobody to tell, so they are a letter only."""
        attempts, message = decode_queued_message(frame)
        found = malformed_letter(message, error, queue=self.queue, worker=self.worker, attempts=attempts)
        self.decisions.letters.append((found, message))

    def _raised(self, job: Job, frame: bytes, raised: FailedRun, company: int) -> None:
        error, admitted = raised.error, raised.admitted
        manifest = admitted.model.manifest
        failure = None
        if cause := cause_of(error, manifest.limits):
            before, message = decode_queued_message(frame)
            chosen = None if job.version is not None and is_version(job.version) else manifest.version
            attempt = Attempt(cause=cause, owner=self.owner, at_ms=self.now_ms, claim_size=company, version=chosen)
            attempts = (*before, attempt)
            frame = encode_queued_message(attempts, message)
            decision = decide(attempts, manifest.limits, self.chance())
            if isinstance(decision, Retry):
                self.decisions.delayed.append((int(decision.after * 1000), frame))
                self.decisions.retried.append((job, error))
                return
            failure = msgspec.structs.replace(failure_of(error, job), reason=decision.reason)
        self.add_finished(job, frame, failure or failure_of(error, job), version=manifest.version)
        if not isinstance(error, InvalidInput):
            self.decisions.errors.append((error, admitted))

    def _withheld(self, job: Job, frame: bytes, withheld: NotRunnableHere) -> None:
        before, message = decode_queued_message(frame)
        attempts = (*before, Attempt(cause=REQUEUED, owner=self.owner, at_ms=self.now_ms, claim_size=0))
        decision = requeue(attempts, withheld.error, self.chance())
        if isinstance(decision, Retry):
            self.decisions.delayed.append((int(decision.after * 1000), encode_queued_message(attempts, message)))
            return
        failure = failure_of(withheld.error, job)
        self.add_finished(
            job,
            encode_queued_message(attempts, message),
            msgspec.structs.replace(
                failure,
                reason=decision.reason,
                message=f"{failure.message}; no worker could run the job in the time it waited for one",
            ),
        )
