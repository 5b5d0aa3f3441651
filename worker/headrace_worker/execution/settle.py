"""Decide what becomes of each job of a claim: an outcome, with a dead letter if it is a failure, or another run.

    predict ─> [settle] ─> publish

The decisions are pure: the time and the random numbers are arguments, and `publish` carries the decisions out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from headrace.catalog.aliases import is_version
from headrace.errors import InvalidInput
from headrace.wire.attempts import (
    REQUEUED,
    Attempt,
    add_requeue,
    encode_delayed,
    encode_queued_message,
    select_counted,
    select_source,
)
from headrace.wire.dead_letter import DeadLetter, malformed_letter
from headrace.wire.outcome import Failure, Outcome, Success
from headrace_worker.execution.claimed_job import ClaimedJob, FailedRun, JobResult, NotRunnableHere
from headrace_worker.execution.opening import MalformedEntry
from headrace_worker.execution.retry import Retry, decide_requeue, decide_retry
from headrace_worker.failures import find_retry_cause, make_failure


class ClaimDecisions(msgspec.Struct, frozen=True, kw_only=True):
    """The outcomes, dead letters and requeues to publish for a claim, and the failed runs to report."""

    #: By job id. If two jobs of the claim have the same id, the first outcome counts.
    outcomes: dict[str, Outcome] = {}
    #: The dead letters, each with its message.
    letters: list[tuple[DeadLetter, bytes]] = []
    #: Jobs that return to the queue later: milliseconds until then, and the member of `Keys.delayed`.
    delayed: list[tuple[int, bytes]] = []
    #: The milliseconds until then by job id: the record of the job must live longer.
    delays: dict[str, int] = {}
    #: The failed runs that ended their jobs because of the model: invalid input is not among them.
    model_errors: list[FailedRun] = []
    #: The failed runs whose jobs run again.
    retried: list[FailedRun] = []


class OutcomeDecider(msgspec.Struct, frozen=True, kw_only=True):
    """Collects the decisions for the jobs of one claim."""

    queue: str
    #: The process that owns the claim, and the worker's name.
    owner: str
    worker: str
    #: The server's unix milliseconds.
    now_ms: int
    #: Returns random numbers from 0 to 1.
    chance: Callable[[], float]
    decisions: ClaimDecisions = msgspec.field(default_factory=ClaimDecisions)

    def add_results(self, results: Sequence[JobResult]) -> None:
        """Decide for each result of jobs that ran together, or of jobs that finished without running."""
        outcomes = self.decisions.outcomes
        for result in results:
            value = result.value
            if type(value) is Success:
                outcomes.setdefault(value.job, value)
            elif isinstance(value, FailedRun):
                self._retry_or_fail(value, claim_size=len(results))
            elif isinstance(value, NotRunnableHere):
                self._requeue_or_fail(result.claimed, value)
            else:
                self._finish(result.claimed, value, result.claimed.attempts)

    def add_malformed(self, entries: Iterable[MalformedEntry]) -> None:
        """Make messages that hold no job dead letters. Without a job id, they have no outcome."""
        for entry in entries:
            letter = malformed_letter(
                entry.message, entry.error, queue=self.queue, worker=self.worker, attempts=entry.attempts
            )
            self.decisions.letters.append((letter, entry.message))

    def add_not_due(self, delayed: Iterable[tuple[str, int, bytes]]) -> None:
        """Delay jobs whose time has not come: id, milliseconds, and the member of `Keys.delayed`."""
        for job, milliseconds, member in delayed:
            self._add_delayed(job, milliseconds, member)

    def _add_delayed(self, job: str, milliseconds: int, member: bytes) -> None:
        self.decisions.delayed.append((milliseconds, member))
        self.decisions.delays[job] = max(milliseconds, self.decisions.delays.get(job, 0))

    def _retry_or_fail(self, failed: FailedRun, claim_size: int) -> None:
        claimed, error, manifest = failed.admitted.claimed, failed.error, failed.admitted.model.manifest
        job, attempts = claimed.job, claimed.attempts
        failure = None
        if cause := find_retry_cause(error, manifest.limits):
            chosen = None if job.version is not None and is_version(job.version) else manifest.version
            attempts = (
                *attempts,
                Attempt(cause=cause, owner=self.owner, at_ms=self.now_ms, claim_size=claim_size, version=chosen),
            )
            decision = decide_retry(attempts, manifest.limits, self.chance())
            if isinstance(decision, Retry):
                self._delay(claimed, attempts, decision)
                self.decisions.retried.append(failed)
                return
            failure = msgspec.structs.replace(make_failure(error, job), reason=decision.reason)
        runs = len(select_counted(claimed.attempts)) + 1
        failure = failure or make_failure(error, job)
        self._finish(claimed, failure, attempts, version=manifest.version, runs=runs)
        if not isinstance(error, InvalidInput):
            self.decisions.model_errors.append(failed)

    def _requeue_or_fail(self, claimed: ClaimedJob, reason: NotRunnableHere) -> None:
        attempt = Attempt(cause=REQUEUED, owner=self.owner, at_ms=self.now_ms, claim_size=0)
        attempts = add_requeue(claimed.attempts, attempt)
        error, is_loaded_elsewhere = reason.error, reason.is_loaded_elsewhere
        decision = decide_requeue(attempts, error, self.chance(), is_loaded_elsewhere=is_loaded_elsewhere)
        if isinstance(decision, Retry):
            self._delay(claimed, attempts, decision)
            return
        failure = make_failure(error, claimed.job)
        message = f"{failure.message}; no worker could run the job in the time it waited for one"
        self._finish(claimed, msgspec.structs.replace(failure, reason=decision.reason, message=message), attempts)

    def _delay(self, claimed: ClaimedJob, attempts: Sequence[Attempt], decision: Retry) -> None:
        source = select_source(attempts, claimed.job.priority)
        member = encode_delayed(source, encode_queued_message(attempts, claimed.message))
        self._add_delayed(claimed.job.id, int(decision.after * 1000), member)

    def _finish(
        self,
        claimed: ClaimedJob,
        outcome: Outcome,
        attempts: tuple[Attempt, ...],
        version: str | None = None,
        runs: int | None = None,
    ) -> None:
        """Record a job's outcome, and a dead letter for a failure.

        `version` is the version that ran, if any; `runs` is the number of runs, None for that of the attempts.
        """
        job = claimed.job
        if self.decisions.outcomes.setdefault(job.id, outcome) is not outcome or not isinstance(outcome, Failure):
            return
        letter = DeadLetter(
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
            runs=len(select_counted(attempts)) if runs is None else runs,
            metadata=job.metadata,
        )
        self.decisions.letters.append((letter, claimed.message))
