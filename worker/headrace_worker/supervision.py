"""How Celery supervises a claim: what it does when the pool process is lost, or takes too long."""

from __future__ import annotations

from celery.worker.request import Request


class ClaimRequest(Request):  # type: ignore[misc]  # Celery has no types here
    """Celery's request for a claim. Whatever ends the process, the jobs go back; this tells them why."""

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """The time limit passed: the pool process is killed."""
        if not soft:
            self.message.cause = "timeout"
        super().on_timeout(soft, timeout)
