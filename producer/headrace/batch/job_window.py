"""Send the rows of a file as jobs and give their predictions back in order, a bounded number under way."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from headrace.batch.blocks import PredictedRow, must_split, pair_with_outcome, split_into_blocks
from headrace.batch.reader import Row
from headrace.catalog.contract import Contract
from headrace.errors import BrokerUnavailable, HeadraceError, InvalidInput, NotDurable, QueueFull, ResultTimeout
from headrace.wire.message import new_id
from headrace.wire.outcome import Outcome

if TYPE_CHECKING:
    from headrace.client import Client, JobHandle

T = TypeVar("T")

#: How long Redis may be away before a batch gives up, in seconds: longer than a restart or a failover takes.
PATIENCE = 60.0
#: Seconds between two looks at the clock while an outcome is waited for, and the first and longest rest
#: before something refused is tried again.
_TICK = 1.0
_REST, _LONGEST_REST = 0.05, 1.0


class JobWindow:
    """The jobs of one batch.

    `on_wait` is called about once a second while nothing arrives. `deadline` is a moment of `clock`. Every
    job is sent to the version of the contract: one file is predicted by one version.
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
        self._jobs: dict[str, JobHandle] = {}

    def predicted(self, rows: Iterable[Row]) -> Generator[PredictedRow]:
        """Each row with its prediction or error, in the order of the rows.

        Raises ResultTimeout at the deadline and BrokerUnavailable when Redis stays away. However it ends,
        jobs without an outcome are cancelled.
        """
        window: deque[tuple[list[Row], JobHandle | None]] = deque()
        try:
            for block in split_into_blocks(rows, self._rows_per_job):
                if len(window) >= self._in_flight:
                    yield from self._finished(*window.popleft())
                window.append((block, self._sent(block)))
            while window:
                yield from self._finished(*window.popleft())
        finally:
            self._cancel()

    def _sent(self, block: list[Row]) -> JobHandle | None:
        """The job of a block; None if nothing in it can be sent, or not together."""
        instances = [row.instance for row in block if row.error is None]
        if not instances:
            return None
        try:
            return self._submit(instances)
        except InvalidInput:
            # Rows may each be fit and their job too large; `_finished` sends them one by one.
            return None

    def _finished(self, block: list[Row], job: JobHandle | None) -> list[PredictedRow]:
        fit = sum(row.error is None for row in block)
        outcome = self._outcome(job) if job else None
        if fit and (outcome is None or must_split(outcome, fit)):
            return self._one_by_one(block)
        return pair_with_outcome(self._contract, block, outcome)

    def _one_by_one(self, block: list[Row]) -> list[PredictedRow]:
        jobs: list[tuple[Row, JobHandle | None, str | None]] = []
        for row in block:
            job, error = None, row.error
            if error is None:
                try:
                    job = self._submit([row.instance])
                except InvalidInput as refused:
                    error = str(refused)
            jobs.append((row, job, error))
        done: list[PredictedRow] = []
        for row, job, error in jobs:
            if job is None:
                done.append(PredictedRow(row=row, error=error))
            else:
                done += pair_with_outcome(self._contract, [row], self._outcome(job))
        return done

    def _submit(self, instances: list[Any]) -> JobHandle:
        # With an id of our own a job sent again after a cut connection is still one job.
        name = new_id()
        job = self._patiently(
            lambda: self._client.submit(self._contract.model, instances=instances, id=name, **self._options)
        )
        self._jobs[job.id] = job
        return job

    def _outcome(self, job: JobHandle) -> Outcome:
        while True:
            try:
                outcome = self._patiently(lambda: job.outcome(timeout=_TICK))
            except ResultTimeout:
                self._look_at_the_clock()
            else:
                del self._jobs[job.id]
                return outcome

    def _patiently(self, call: Callable[[], T]) -> T:
        """Try until the queue has room and Redis is there again."""
        rest, away_since = _REST, None
        while True:
            try:
                return call()
            except QueueFull:
                away_since = None
            except (BrokerUnavailable, NotDurable) as error:
                if isinstance(error, NotDurable) and not error.accepted:
                    raise  # this Redis never will
                away_since = away_since or self._clock()
                if self._clock() - away_since > PATIENCE:
                    raise
            time.sleep(rest)
            rest = min(2 * rest, _LONGEST_REST)
            self._look_at_the_clock()

    def _look_at_the_clock(self) -> None:
        self._on_wait()
        if self._deadline is not None and self._clock() >= self._deadline:
            raise ResultTimeout("the time given was not enough for all rows")

    def _cancel(self) -> None:
        # A broker that is away cannot be asked for each of them.
        with contextlib.suppress(HeadraceError):
            for job in self._jobs.values():
                job.cancel()
        self._jobs.clear()
