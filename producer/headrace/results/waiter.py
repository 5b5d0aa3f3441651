"""The protocol of callers that wait for outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from headrace.errors import HeadraceError
from headrace.wire.outcome import Outcome


class Waiter(Protocol):
    """A caller that waits for the outcomes of jobs."""

    #: The jobs without an outcome yet.
    jobs: set[str]
    #: The jobs that are announced on the client's reply channel; the others have a channel each.
    own: set[str]
    #: False if the jobs are submitted only after their subscription is confirmed: no outcome is stored before.
    fetch_stored: bool

    def on_subscribed(self, job: str) -> None:
        """Handle that no announcement of the job is missed from now on."""

    def on_outcomes(self, outcomes: Mapping[str, Outcome]) -> None:
        """Handle the outcomes of some of the jobs."""

    def on_error(self, error: HeadraceError) -> None:
        """Handle that no further outcome will arrive."""
