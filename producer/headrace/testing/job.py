"""The job handle of an `InMemoryClient`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from headrace.client.common import check_timeout
from headrace.errors import ResultTimeout
from headrace.inspection.timeline import JobFacts, Timeline, build_timeline
from headrace.wire.outcome import Outcome, Prediction, Status

if TYPE_CHECKING:
    from headrace.testing.client import InMemoryClient


class InMemoryJob:
    """A job of an InMemoryClient, with the methods of `headrace.JobHandle`. It never waits."""

    def __init__(self, client: InMemoryClient, job: str, model: str | None) -> None:
        self.id = job
        self.model = model
        self._client = client

    def status(self, timeout: float | None = None) -> Status:
        """Return the status of the job; see `JobHandle.status`."""
        check_timeout(timeout)
        return self._client.read_state(self.id)[0]

    def done(self, timeout: float | None = None) -> bool:
        """Return True if the job has its outcome."""
        check_timeout(timeout)
        return self._client.read_state(self.id)[1] is not None

    def outcome(self, timeout: float | None = None) -> Outcome:
        """Return the outcome. Raises ResultTimeout at once if there is none yet."""
        check_timeout(timeout)
        status, outcome = self._client.read_state(self.id)
        if outcome is None:
            raise ResultTimeout(f"job {self.id} has no outcome; it is {status}: call `run()` of the client first")
        return outcome

    def result(self, timeout: float | None = None) -> Prediction:
        """Return the prediction; see `JobHandle.result`."""
        return self.outcome(timeout).get()

    def cancel(self, timeout: float | None = 5.0, *, unknown: bool = False) -> bool:
        """Cancel the job; see `JobHandle.cancel`."""
        check_timeout(timeout)
        return self._client.cancel(self.id, unknown=unknown)

    def explain(self, timeout: float | None = None) -> Timeline:
        """Return the history of the job: only its outcome, if it has one."""
        check_timeout(timeout)
        status, outcome = self._client.read_state(self.id)
        timeline = build_timeline(JobFacts(job=self.id, outcome=outcome))
        return msgspec.structs.replace(timeline, status=status, model=self.model, note=None)

    def __repr__(self) -> str:
        return f"<InMemoryJob {self.id}{f' of {self.model}' if self.model else ''}>"
