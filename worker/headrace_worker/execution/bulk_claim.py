"""Run a claim of a bulk queue: one job, a step of a run, whose outcome is its receipt.

    open ─> is it a job of the run? ─> plan, chunk or finish ─> settle ─> publish, with what it changes in the run

A chunk that used up its attempts is split instead of given up, as long as it has more than one row. A single row
that ends its process is a failed row of its chunk. So a few rows cost their run a few rows.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec
import redis
from billiard.exceptions import SoftTimeLimitExceeded

from headrace.catalog.validation import check_method
from headrace.errors import InvalidInput
from headrace.wire.attempts import select_counted
from headrace.wire.bulk import (
    ChunkStep,
    FinishStep,
    PlanStep,
    Receipt,
    job_of_chunk,
    job_of_finish,
    job_of_plan,
    run_of,
    unit_of,
)
from headrace.wire.keys import Keys
from headrace.wire.message import Job
from headrace.wire.outcome import BulkSuccess, Cancelled, Failure, Outcome
from headrace.wire.parsing import MalformedMessage, parse
from headrace.wire.signing import JobKeys
from headrace_worker.bulk.jobs import digest_step, make_chunk_job, make_finish_job
from headrace_worker.bulk.run_state import RunState, RunStore
from headrace_worker.bulk.split import MAX_SPLITS, row_range, split
from headrace_worker.execution.batching import find_model
from headrace_worker.execution.claimed_job import Admitted, ClaimedJob, FailedRun, JobResult, NotRunnableHere
from headrace_worker.execution.opening import ParsedClaim
from headrace_worker.execution.pool_process import allow_interrupts
from headrace_worker.failures import make_failure
from headrace_worker.transport.run_script import NewJob, RunUpdate

if TYPE_CHECKING:
    from headrace_worker.bulk.locations import Locations
    from headrace_worker.models.loader import LoadedModel
    from headrace_worker.models.registry import Registry

log = logging.getLogger("headrace.bulk")

#: The most bytes of a message that is read once more to give up its job, and characters of an error of a run.
_MAX_MESSAGE_BYTES, _MAX_ERROR = 1024 * 1024, 1000
#: The reasons of a failure that a single row may have caused.
_LOST_REASONS = frozenset({"crash", "timeout", "attempts exhausted"})


class BulkJobs:
    """Runs the jobs of bulk runs in one pool process.

    `locations` is the setting of that name, and `job_keys` sign the jobs that it enqueues.
    """

    def __init__(
        self,
        client: redis.Redis,
        keys: Keys,
        registry: Registry,
        locations: str,
        job_keys: JobKeys | None,
    ) -> None:
        self._store, self._registry = RunStore(client, keys), registry
        self._setting, self._job_keys = locations, job_keys
        self._locations: Locations | None = None

    def run(self, parsed: ParsedClaim, now: datetime) -> list[JobResult]:
        """Run the jobs of a claim, and split those that are to be given up. Return the results of `parsed.jobs`.

        Raises redis.RedisError.
        """
        parsed.finished[:] = [self._find_guilty_rows(result) for result in parsed.finished]
        return [self._run_job(claimed, now) for claimed in parsed.jobs]

    # --- a job that runs --------------------------------------------------------------------------------

    def _run_job(self, claimed: ClaimedJob, now: datetime) -> JobResult:
        try:
            state = self._read_state(claimed.job)
        except InvalidInput as error:
            return JobResult(claimed, make_failure(error, claimed.job))
        if state is not None and self._is_over(claimed.job, state):
            return JobResult(claimed, Cancelled(job=claimed.job.id))
        if self._is_lost_piece(claimed) and (receipt := self._split(claimed.job)):
            return JobResult(claimed, BulkSuccess(job=claimed.job.id, receipt=receipt))
        job = claimed.job
        if isinstance(job.step, PlanStep):
            job = msgspec.structs.replace(job, version=(state and state.version) or job.step.run.version)
        elif isinstance(job.step, FinishStep):
            job = msgspec.structs.replace(job, version=state and state.version)
        model = find_model(job, self._registry, now)
        if isinstance(model, NotRunnableHere | Outcome):
            return JobResult(claimed, model)
        try:
            locations = self._open_locations()
        except ModuleNotFoundError:
            missing = ModuleNotFoundError("bulk runs need pyarrow: install headrace-worker[parquet]")
            return JobResult(claimed, NotRunnableHere(missing))
        return self._run_step(claimed, model, state, locations, now)

    def _open_locations(self) -> Locations:
        """Return the locations of the worker. The first call imports pyarrow, which is an extra."""
        if self._locations is None:
            from headrace_worker.bulk import chunk_job as _chunk_job  # noqa: F401  # it needs all that a job needs
            from headrace_worker.bulk.locations import Locations

            self._locations = Locations(self._setting)
        return self._locations

    def _run_step(
        self, claimed: ClaimedJob, model: LoadedModel, state: RunState | None, locations: Locations, now: datetime
    ) -> JobResult:
        job = claimed.job
        admitted = Admitted(claimed, model, model.manifest.methods[0], ())
        try:
            with allow_interrupts():
                receipt = self._carry_out(job, model, state, locations, now)
        except SoftTimeLimitExceeded as error:
            receipt = self._receipt_of_lost(job, "timeout")
            if receipt is None:
                return JobResult(claimed, FailedRun(admitted, error), admitted)
        except redis.RedisError:
            raise
        except MemoryError as error:
            receipt = self._receipt_of_lost(job, "crash")
            if receipt is None:
                return JobResult(claimed, FailedRun(admitted, error), admitted)
        except Exception as error:  # noqa: BLE001  # any error of a run is its failure, not the worker's
            return JobResult(claimed, FailedRun(admitted, error), admitted)
        outcome = Cancelled(job=job.id) if receipt is None else BulkSuccess(job=job.id, receipt=receipt)
        return JobResult(claimed, outcome, admitted)

    def _carry_out(
        self, job: Job, model: LoadedModel, state: RunState | None, locations: Locations, now: datetime
    ) -> Receipt | None:
        """Carry out a step. Return its receipt; None if the run was stopped meanwhile."""
        # They import pyarrow, which is an extra.
        from headrace_worker.bulk.chunk_job import StoppedError, run_chunk
        from headrace_worker.bulk.finish_job import finish_run
        from headrace_worker.bulk.plan_job import plan_run

        match job.step:
            case PlanStep() as step:
                check_method(model.contract, step.run.method)
                now_ms = int(now.timestamp() * 1000)
                return plan_run(step, model.manifest, self._store, locations, self._job_keys, now_ms=now_ms)
            case FinishStep():
                assert state is not None  # noqa: S101  # a job of no run is refused before
                return finish_run(state.run, model, self._store, locations)
            case ChunkStep() as step:

                def is_stopped() -> bool:
                    return bool(step.run) and self._store.is_stopped(step.run, job.id)

                try:
                    return run_chunk(model, step, locations, is_stopped=is_stopped)
                except StoppedError:
                    return None
        raise InvalidInput("a job of a bulk queue needs a step")

    def _read_state(self, job: Job) -> RunState | None:
        """Return the run of a job; None for a chunk of no run. Raises InvalidInput unless the job belongs to it.

        A job belongs to a run if its plan, or whoever submitted the run, has enqueued it: then there is a record
        of its id and its arguments.
        """
        step = job.step
        if step is None:
            raise InvalidInput("a job of a bulk queue needs a step")
        name = run_of(step)
        if not name:
            return None
        state = self._store.read(name)
        if state is None:
            raise InvalidInput(f"there is no bulk run {name!r}: submit it, or send a chunk without a run")
        match step:
            case PlanStep():
                expected, fits = job_of_plan(name, step.round), step.run == state.run
            case ChunkStep():
                expected, fits = job_of_chunk(step), True
            case FinishStep():
                rounds = range(1, state.round + 1)
                ids = [job_of_finish(name, round_) for round_ in rounds]
                expected, fits = job.id if job.id in ids else ids[-1], True
        is_genuine = fits and job.id == expected and state.run.model == job.model
        if not is_genuine or not self._store.has_record(job.id, digest_step(job.model, step)):
            raise InvalidInput(
                f"the job is none that the bulk run {name!r} has enqueued, and changes nothing in it"
            )
        return state

    def _is_over(self, job: Job, state: RunState) -> bool:
        """Return whether a job has nothing to do: its run was stopped, or a later plan does its work."""
        if isinstance(job.step, PlanStep) and job.step.round != state.round:
            return True
        return state.is_stopped or state.state == "success"

    # --- a job whose process was lost -------------------------------------------------------------------

    def _is_lost_piece(self, claimed: ClaimedJob) -> bool:
        """Return whether a piece of a split chunk was lost once: splitting it harms no innocent row."""
        step = claimed.job.step
        is_lost = any(attempt.is_lost for attempt in select_counted(claimed.attempts))
        return is_lost and isinstance(step, ChunkStep) and step.is_split

    def _find_guilty_rows(self, result: JobResult) -> JobResult:
        """Return a success in place of a failure that a row may have caused: split pieces, or the failed row."""
        failure, claimed = result.value, result.claimed
        if not isinstance(failure, Failure) or failure.reason not in _LOST_REASONS or not claimed.attempts:
            return result
        job = claimed.job if claimed.job.step is not None else self._read_job(claimed)
        if job is None:
            return result
        claimed = msgspec.structs.replace(claimed, job=job)
        try:
            state = self._read_state(job)
        except InvalidInput:
            return result
        if state is not None and self._is_over(job, state):
            return JobResult(claimed, Cancelled(job=job.id))
        receipt = self._receipt_of_lost(job, failure.reason)
        return JobResult(claimed, failure if receipt is None else BulkSuccess(job=job.id, receipt=receipt))

    def _read_job(self, claimed: ClaimedJob) -> Job | None:
        """Read the job of a message that was not opened; None if it cannot be read."""
        if len(claimed.message) > _MAX_MESSAGE_BYTES:
            return None
        try:
            return parse(claimed.message).to_job()
        except (MalformedMessage, InvalidInput):
            return None

    def _receipt_of_lost(self, job: Job, reason: str) -> Receipt | None:
        """Return the receipt of a lost chunk that is split, or is a single row; None if it fails as a whole."""
        step = job.step
        if not isinstance(step, ChunkStep) or not step.run:
            return None
        if receipt := self._split(job):
            return receipt
        rows = row_range(step)
        if not step.is_split or rows is None or rows[1] - rows[0] != 1:
            return None
        log.warning("a row of %s ended its process each time: %s", job.id, reason)
        return Receipt(rows=1, failed=1, reasons={reason: 1})

    def _split(self, job: Job) -> Receipt | None:
        """Return the receipt of a chunk that is split; None if it cannot be."""
        step = job.step
        if not isinstance(step, ChunkStep) or not step.run or not (pieces := split(step)):
            return None
        receipts = self._store.read_receipts(step.run).items()
        chunk = str(step.chunk)
        splits = sum(bool(receipt.chunks) and unit.partition("-")[0] == chunk for unit, receipt in receipts)
        if splits >= MAX_SPLITS:
            log.warning("%s is not split: chunk %s was split %d times already", job.id, chunk, splits)
            return None
        log.warning("%s lost its process; it is split into %d pieces to find the rows", job.id, len(pieces))
        return Receipt(rows=0, chunks=len(pieces))

    # --- what an outcome changes in the run -------------------------------------------------------------

    def make_update(
        self,
        results: Sequence[JobResult],
        cancelled: Sequence[ClaimedJob],
        outcomes: dict[str, Outcome],
        now: datetime,
    ) -> RunUpdate | None:
        """Return what the outcome of the only job of a claim changes in its run; None for nothing."""
        jobs = [*(result.claimed.job for result in results), *(claimed.job for claimed in cancelled)]
        if len(jobs) != 1 or jobs[0].step is None or not run_of(jobs[0].step):
            return None
        (job,) = jobs
        outcome = Cancelled(job=job.id) if cancelled else outcomes.get(job.id)
        if outcome is None:  # it runs again
            return None
        try:
            state = self._read_state(job)
        except InvalidInput:
            return None
        assert state is not None  # noqa: S101  # the step names a run
        if isinstance(outcome, Cancelled) and state.is_stopped:
            return None
        return self._make_update(job, outcome, state, int(now.timestamp() * 1000))

    def _make_update(self, job: Job, outcome: Outcome, state: RunState, now_ms: int) -> RunUpdate | None:
        step, name = job.step, state.run.name
        reason, message = _describe(outcome)
        finish = make_finish_job(job.model, name, state.round, self._job_keys, now_ms=now_ms)
        if isinstance(step, ChunkStep):
            update = RunUpdate(
                run=name,
                change="chunk",
                unit=unit_of(step),
                max_failed=state.run.max_failed,
                finish=finish,
            )
            if not isinstance(outcome, BulkSuccess):
                failure = msgspec.json.encode({"job": job.id, "reason": reason, "message": message})
                return msgspec.structs.replace(update, failure=failure)
            receipt = outcome.receipt
            pieces: list[NewJob] = []
            if receipt.chunks:
                pieces = [make_chunk_job(job.model, piece, self._job_keys, now_ms=now_ms) for piece in split(step)]
            return msgspec.structs.replace(
                update,
                receipt=msgspec.json.encode(receipt),
                rows=receipt.rows,
                failed=receipt.failed,
                milliseconds=receipt.milliseconds,
                reasons=receipt.reasons,
                pieces=pieces,
            )
        is_plan = isinstance(step, PlanStep)
        if isinstance(outcome, BulkSuccess):
            if is_plan:
                return RunUpdate(run=name, change="planned", max_failed=state.run.max_failed, finish=finish)
            return RunUpdate(run=name, change="ended", state="success")
        if isinstance(outcome, Cancelled) and is_plan:  # a later plan does its work
            return None
        subject = "the plan" if is_plan else "the finish"
        return RunUpdate(
            run=name, change="ended", state="failure", error=f"{subject} failed ({reason}): {message}"[:_MAX_ERROR]
        )


def _describe(outcome: Outcome) -> tuple[str, str]:
    """Return the reason of an outcome that is no success, and its message."""
    match outcome:
        case Failure():
            return outcome.reason, outcome.message
        case Cancelled():
            return "cancelled", "the job was cancelled"
        case _:
            return "expired", "the job expired"
