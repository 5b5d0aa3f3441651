"""One job from outside: where it is, what it ended in, and the way to stop it."""

from __future__ import annotations

from headrace.client.session import Session
from headrace.clock import utc_now
from headrace.inspection.timeline import Timeline
from headrace.results import publish
from headrace.wire.outcome import Outcome, Prediction, Status, status_of


class JobHandle:
    """A job of this client, or any job by its id (`Client.job`). Keeps the outcome once it has it."""

    # There are as many of them as jobs in a `submit_many`.
    __slots__ = ("_outcome", "_session", "id", "model", "own")

    def __init__(
        self,
        link: Session,
        job: str,
        model: str | None = None,
        outcome: Outcome | None = None,
        *,
        own: bool = False,
    ) -> None:
        #: The id of the job.
        self.id = job
        #: The model it was sent to; None where only the id is known.
        self.model = model
        #: Whether this client submitted it, under an id of its own making.
        self.own = own
        self._session = link
        self._outcome = outcome

    def status(self) -> Status:
        """Where the job is now: queued, running, success, failure, cancelled, expired or unknown."""
        if self._outcome is None:
            known = self._session.run(self._session.inspector.read_state(self.id))
            self.model = self.model or known.model
            self._outcome = known.outcome
            return known.status
        return status_of(self._outcome)

    @property
    def has_outcome(self) -> bool:
        """Whether the handle holds the outcome, without asking Redis."""
        return self._outcome is not None

    def set_outcome(self, outcome: Outcome) -> None:
        """Hold the outcome that was waited for elsewhere."""
        self._outcome = outcome

    def done(self) -> bool:
        """Whether the job has its outcome."""
        self.status()
        return self._outcome is not None

    def outcome(self, timeout: float | None = None) -> Outcome:
        """Wait for the outcome, `timeout` seconds at the most; None waits for ever.

        Raises ResultTimeout; BrokerUnavailable if Redis refuses us, or was away when time was up.
        """
        if self._outcome is None:
            self._outcome = self._session.outcome(self.id, timeout)
        return self._outcome

    def result(self, timeout: float | None = None) -> Prediction:
        """Wait for the prediction. Raises what `outcome` does, and JobFailed, JobCancelled or JobExpired."""
        return self.outcome(timeout).get()

    def cancel(self) -> bool:
        """Cancel the job; True if it is cancelled, False if it has another outcome already.

        A job that runs is not interrupted: its prediction is thrown away.
        """
        return self._session.run(
            publish.cancel(self._session.keys, self.id, ttl=self._session.settings.result_ttl, now=utc_now())
        )

    def explain(self) -> Timeline:
        """What became of the job so far: submitted, claimed, predicted, tried again, ended; or where it waits."""
        return self._session.run(self._session.inspector.explain(self.id))

    def __repr__(self) -> str:
        return f"<JobHandle {self.id}{f' of {self.model}' if self.model else ''}>"
