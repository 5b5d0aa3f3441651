"""A submitted job: its status, its outcome, its history, and the way to cancel it."""

from __future__ import annotations

from headrace.client.aio.session import AsyncSession
from headrace.client.common import check_timeout
from headrace.clock import Deadline, utc_now
from headrace.errors import ResultTimeout
from headrace.inspection.timeline import Timeline
from headrace.results.cancellation import cancel
from headrace.wire.outcome import Cancelled, Outcome, Prediction, Status, outcome_status


class AsyncJobHandle:
    """A job that this client submitted, or any job by its id (`AsyncClient.job`).

    It keeps the outcome once it has received it.
    """

    # `submit_many` returns a handle for each job.
    __slots__ = ("_outcome", "_session", "id", "model", "own")

    def __init__(self, session: AsyncSession, job: str, model: str | None = None, *, own: bool = False) -> None:
        #: The id of the job.
        self.id = job
        #: The model it was sent to; None if only the id is known.
        self.model = model
        #: True if this client submitted it under an id that the client made.
        self.own = own
        self._session = session
        self._outcome: Outcome | None = None

    @property
    def has_outcome(self) -> bool:
        """True if the handle holds the outcome. Asks Redis nothing."""
        return self._outcome is not None

    def set_outcome(self, outcome: Outcome) -> None:
        """Store the outcome that `as_completed` received."""
        self._outcome = outcome

    async def status(self, timeout: float | None = None) -> Status:
        """Return the status of the job: waiting, running, success, failure, cancelled, expired or unknown.

        `timeout` is the most seconds of the call; None is the client's.
        """
        if self._outcome is None:
            state = await self._session.run_briefly(self._session.inspector.read_state(self.id), timeout)
            self.model = self.model or state.model
            self._outcome = state.outcome
            return state.status
        return outcome_status(self._outcome)

    async def done(self, timeout: float | None = None) -> bool:
        """Return True if the job has its outcome."""
        await self.status(timeout)
        return self._outcome is not None

    async def outcome(self, timeout: float | None = None) -> Outcome:
        """Wait for the outcome, `timeout` seconds at most; None waits for ever.

        Raises ResultTimeout; BrokerUnavailable if Redis refuses the client, or was unreachable at the end.
        """
        timeout = check_timeout(timeout)
        if self._outcome is None:
            self._outcome = await self._session.outcome(self.id, Deadline(timeout))
        return self._outcome

    async def result(self, timeout: float | None = None) -> Prediction:
        """Wait for the prediction. Raises as `outcome` does, and JobFailed, JobCancelled or JobExpired."""
        return (await self.outcome(timeout)).get()

    async def cancel(self, timeout: float | None = 5.0, *, unknown: bool = False) -> bool:
        """Cancel the job. Return True if it is cancelled, False if it has another outcome, or if it is unknown.

        With `unknown`, an id that Redis does not know is cancelled too. Use it for a job whose submit may still be
        under way, so that the job does not run when it arrives, and for a job of a plain Celery client.

        A running job is not interrupted: its prediction is discarded. A Redis user who may not write outcomes asks
        the workers to cancel the job, and waits until one does; else False, but the request stays, and the job
        does not run. The call takes `timeout` seconds at most; with 0 it does not wait for the workers, and Redis
        has the time of the client.
        """
        deadline, session = Deadline(check_timeout(timeout)), self._session
        operation = cancel(session.keys, self.id, ttl=session.settings.result_ttl, now=utc_now(), unknown=unknown)
        is_cancelled = await session.run_briefly(operation, timeout or None)
        if is_cancelled is not None:
            return is_cancelled
        try:
            return isinstance(await self.outcome(deadline.remaining()), Cancelled)
        except ResultTimeout:
            return False

    async def explain(self, timeout: float | None = None) -> Timeline:
        """Return the history of the job: submitted, claimed, predicted, retried, finished; or where it waits."""
        return await self._session.run(self._session.inspector.explain(self.id), timeout)

    def __repr__(self) -> str:
        return f"<AsyncJobHandle {self.id}{f' of {self.model}' if self.model else ''}>"
