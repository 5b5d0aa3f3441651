"""Submits the rows of a file as jobs, with a bounded number under way, and returns their predictions in order."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from headrace.batch.blocks import Block, Predicted, must_split
from headrace.batch.forms import IN_FLIGHT_BYTES
from headrace.batch.reader import IDLE_SECONDS
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
#: Seconds that the cancelling of a job may take at the end of a batch, and the forgetting of outcomes.
_CANCEL_SECONDS, _FORGET_SECONDS = 2.0, 2.0
#: Outcomes that are forgotten in one call.
_FORGOTTEN_TOGETHER = 16
#: Seconds before a refused call is repeated: at first, and at most.
_MIN_DELAY_SECONDS, _MAX_DELAY_SECONDS = 0.05, 1.0


class SubmittedBlock(msgspec.Struct, frozen=True):
    """A block, and its job or the reason why it cannot be one job; neither if none of its rows can be sent."""

    block: Block
    job: JobHandle | None = None
    refusal: InvalidInput | None = None


class JobWindow:
    """The jobs of one batch that are under way, the oldest first.

    At most `in_flight` jobs are under way, or two if their rows take more than `in_flight_bytes` of the file.
    `on_wait` is called about once a second while no outcome arrives, `on_submit` before each job; both may raise.
    `deadline` is a moment of `clock`, None for no deadline. Every job is submitted to the contract's version, so
    that one version predicts the whole file.
    """

    def __init__(
        self,
        client: Client,
        contract: Contract,
        *,
        method: str,
        priority: int,
        in_flight: int,
        in_flight_bytes: int = IN_FLIGHT_BYTES["rows"],
        durable: bool = False,
        owner: str | None = None,
        on_submit: Callable[[], None] = lambda: None,
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
            "owner": owner,
        }
        self._in_flight, self._in_flight_bytes = in_flight, in_flight_bytes
        self._deadline = deadline
        self._on_wait, self._on_submit = on_wait, on_submit
        self._clock = clock
        #: The jobs without an outcome, by id; and those whose outcomes were received and are not forgotten yet.
        self._jobs: dict[str, JobHandle] = {}
        self._finished: list[JobHandle] = []
        self._may_forget = True
        #: The most rows that a job has held.
        self.largest_job = 0

    def predict(self, blocks: Iterable[Block | None]) -> Generator[list[Predicted]]:
        """Yield the rows of each block with their predictions or errors, in the order of the rows.

        The rows of jobs that have ended are not held up by an input that arrives slowly: a block of None says that
        there is none at the moment. Raises ResultTimeout at the deadline, and BrokerUnavailable after an outage of
        MAX_OUTAGE_SECONDS. However the generator ends, jobs without an outcome are cancelled.
        """
        window: deque[SubmittedBlock] = deque()
        size, look_at = 0, self._clock() + IDLE_SECONDS
        try:
            for block in blocks:
                if block is None or self._clock() >= look_at:
                    self._check_deadline()
                    while window and self._has_ended(window[0]):
                        size -= window[0].block.size
                        yield list(self._finish_block(window.popleft()))
                    look_at = self._clock() + IDLE_SECONDS
                if block is None:
                    continue
                while len(window) >= self._in_flight or (
                    len(window) > 1 and size + block.size > self._in_flight_bytes
                ):
                    size -= window[0].block.size
                    yield list(self._finish_block(window.popleft()))
                size += block.size
                window.append(self._submit_block(block))
            while window:
                yield list(self._finish_block(window.popleft()))
            self._forget_outcomes()
        finally:
            self._cancel_jobs()

    def _has_ended(self, submitted: SubmittedBlock) -> bool:
        job = submitted.job
        return job is None or self._retry(job.done)

    def _submit_block(self, block: Block) -> SubmittedBlock:
        """Submit a block as one job; as the jobs of its halves if it is too large for one."""
        if not block.valid_rows:
            return SubmittedBlock(block)
        try:
            job = self._submit(block.instances)
        except InvalidInput as error:
            # Each row may be valid and the job too large.
            return SubmittedBlock(block, refusal=error)
        self.largest_job = max(self.largest_job, block.valid_rows)
        return SubmittedBlock(block, job)

    def _finish_block(self, submitted: SubmittedBlock) -> Iterator[Predicted]:
        block = submitted.block
        if submitted.refusal is not None:
            yield from self._finish_refused(block, submitted.refusal)
            return
        outcome = self._wait_for(submitted.job) if submitted.job else None
        if outcome is not None and must_split(outcome, block.valid_rows):
            yield from self._finish_all(block.split())
        else:
            yield from block.pair(outcome)

    def _finish_refused(self, block: Block, refusal: InvalidInput) -> Iterator[Predicted]:
        if block.valid_rows > 1:
            yield from self._finish_all(block.halves())
        else:
            yield from block.with_error(str(refusal)).pair(None)

    def _finish_all(self, blocks: Iterable[Block]) -> Iterator[Predicted]:
        for submitted in [self._submit_block(block) for block in blocks]:
            yield from self._finish_block(submitted)

    def _submit(self, instances: Sequence[Any]) -> JobHandle:
        # With the same id, a job that is submitted again after a broken connection is still one job.
        job_id = new_id()

        def submit() -> JobHandle:
            with limit_call(self._remaining_seconds()):
                return self._client.submit(self._contract.model, instances=instances, id=job_id, **self._options)

        self._on_submit()
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
                self._finished.append(job)
                if len(self._finished) >= _FORGOTTEN_TOGETHER:
                    self._forget_outcomes()
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

    def _forget_outcomes(self) -> None:
        """Delete the outcomes that were received. A Redis user who may not leaves them to expire."""
        finished, self._finished = self._finished, []
        if not self._may_forget or not finished:
            return
        try:
            with limit_call(_FORGET_SECONDS):
                self._client.forget(finished)
        except HeadraceError:
            self._may_forget = False

    def _cancel_jobs(self) -> None:
        # The first error ends the loop: an unavailable Redis would delay every further call.
        with contextlib.suppress(HeadraceError):
            for job in self._jobs.values():
                with limit_call(_CANCEL_SECONDS):
                    job.cancel(timeout=0)
        self._jobs.clear()
