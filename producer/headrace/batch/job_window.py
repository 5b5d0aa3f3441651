"""Submits the rows of a file as jobs, with a bounded number under way, and returns their predictions in order."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from headrace.batch.blocks import PredictedRow, must_split, pair_with_outcome, split_into_blocks
from headrace.batch.reader import Row
from headrace.catalog.contract import Contract
from headrace.connection.call_limit import limit_call
from headrace.errors import BrokerUnavailable, HeadraceError, InvalidInput, NotDurable, QueueFull, ResultTimeout
from headrace.wire.message import new_id
from headrace.wire.outcome import Outcome

if TYPE_CHECKING:
    from headrace.client import Client, JobHandle

T = TypeVar("T")

#: Seconds that Redis may be unavailable before a batch fails: longer than a restart or a failover takes.
MAX_OUTAGE_SECONDS = 60.0
#: Seconds between two checks of the deadline while the window waits for an outcome.
_TICK_SECONDS = 1.0
#: Seconds that the cancelling of a job may take at the end of a batch.
_CANCEL_SECONDS = 2.0
#: Seconds before a refused call is repeated: at first, and at most.
_MIN_DELAY_SECONDS, _MAX_DELAY_SECONDS = 0.05, 1.0


class JobWindow:
    """The jobs of one batch that are under way, the oldest first.

    `on_wait` is called about once a second while no outcome arrives. `deadline` is a moment of `clock`, None for
    no deadline. Every job is submitted to the contract's version, so that one version predicts the whole file.
    """

    def __init__(
        self,
        client: Client,
        contract: Contract,
        *,
        method: str,
        priority: int,
        rows_per_job: int,
        in_flight: int,
        durable: bool = False,
        deadline: float | None = None,
        on_wait: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._contract = contract
        self._options: dict[str, Any] = {
            "version": contract.version,
            "method": method,
            "priority": priority,
            "durable": durable,
        }
        self._rows_per_job = rows_per_job
        self._in_flight = in_flight
        self._deadline = deadline
        self._on_wait = on_wait
        self._clock = clock
        #: The jobs without an outcome, by id.
        self._jobs: dict[str, JobHandle] = {}

    def predict(self, rows: Iterable[Row]) -> Generator[PredictedRow]:
        """Yield each row with its prediction or error, in the order of the rows.

        Raises ResultTimeout at the deadline, and BrokerUnavailable after an outage of MAX_OUTAGE_SECONDS. However
        the generator ends, jobs without an outcome are cancelled.
        """
        window: deque[tuple[list[Row], JobHandle | None]] = deque()
        try:
            for block in split_into_blocks(rows, self._rows_per_job):
                if len(window) >= self._in_flight:
                    yield from self._finish_block(*window.popleft())
                window.append((block, self._submit_block(block)))
            while window:
                yield from self._finish_block(*window.popleft())
        finally:
            self._cancel_jobs()

    def _submit_block(self, block: list[Row]) -> JobHandle | None:
        """Submit a block as one job; None if all its rows have errors, or if they cannot be one job."""
        instances = [row.instance for row in block if row.error is None]
        if not instances:
            return None
        try:
            return self._submit(instances)
        except InvalidInput:
            # Each row may be valid and the job too large; `_finish_block` then submits the rows one by one.
            return None

    def _finish_block(self, block: list[Row], job: JobHandle | None) -> list[PredictedRow]:
        valid_rows = sum(row.error is None for row in block)
        outcome = self._wait_for(job) if job else None
        if valid_rows and (outcome is None or must_split(outcome, valid_rows)):
            return self._predict_one_by_one(block)
        return pair_with_outcome(self._contract, block, outcome)

    def _predict_one_by_one(self, block: list[Row]) -> list[PredictedRow]:
        jobs: list[tuple[Row, JobHandle | None, str | None]] = []
        for row in block:
            job, error = None, row.error
            if error is None:
                try:
                    job = self._submit([row.instance])
                except InvalidInput as refused:
                    error = str(refused)
            jobs.append((row, job, error))
        predicted: list[PredictedRow] = []
        for row, job, error in jobs:
            if job is None:
                predicted.append(PredictedRow(row=row, error=error))
            else:
                predicted += pair_with_outcome(self._contract, [row], self._wait_for(job))
        return predicted

    def _submit(self, instances: list[Any]) -> JobHandle:
        # With the same id, a job that is submitted again after a broken connection is still one job.
        job_id = new_id()

        def submit() -> JobHandle:
            with limit_call(self._remaining_seconds()):
                return self._client.submit(self._contract.model, instances=instances, id=job_id, **self._options)

        job = self._retry(submit)
        self._jobs[job.id] = job
        return job

    def _wait_for(self, job: JobHandle) -> Outcome:
        while True:
            try:
                outcome = self._retry(lambda: job.outcome(timeout=self._tick_seconds()))
            except ResultTimeout:
                self._check_deadline()
            else:
                del self._jobs[job.id]
                return outcome

    def _retry(self, call: Callable[[], T]) -> T:
        """Repeat a call while the queue is full or Redis is unavailable."""
        delay, unavailable_since = _MIN_DELAY_SECONDS, None
        while True:
            try:
                return call()
            except QueueFull:
                unavailable_since = None
            except (BrokerUnavailable, NotDurable) as error:
                if isinstance(error, NotDurable) and not error.accepted:
                    raise  # this Redis cannot make jobs durable
                unavailable_since = unavailable_since or self._clock()
                if self._clock() - unavailable_since > MAX_OUTAGE_SECONDS:
                    raise
            self._check_deadline()
            time.sleep(delay)
            delay = min(2 * delay, _MAX_DELAY_SECONDS)
            self._check_deadline()

    def _remaining_seconds(self) -> float | None:
        """Return the seconds until the deadline, at least 0; None without one."""
        return None if self._deadline is None else max(0.0, self._deadline - self._clock())

    def _tick_seconds(self) -> float:
        remaining = self._remaining_seconds()
        return _TICK_SECONDS if remaining is None else min(_TICK_SECONDS, remaining)

    def _check_deadline(self) -> None:
        self._on_wait()
        if self._deadline is not None and self._clock() >= self._deadline:
            raise ResultTimeout("the timeout passed before all rows were predicted")

    def _cancel_jobs(self) -> None:
        # The first error ends the loop: an unavailable Redis would delay every further call.
        with contextlib.suppress(HeadraceError):
            for job in self._jobs.values():
                with limit_call(_CANCEL_SECONDS):
                    job.cancel(timeout=0)
        self._jobs.clear()
