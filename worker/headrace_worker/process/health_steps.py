"""How a worker's health knows of its connection and its event loop: steps of Celery's blueprints."""

from __future__ import annotations

from typing import Any

from celery import bootsteps

from headrace_worker.telemetry.health import Health

#: Seconds between two signs of life of the event loop.
_BEAT_EVERY = 1.0


class HealthStep(bootsteps.StartStopStep):
    """The consumer's step that knows of the connection. Set by the app: the `health`."""

    requires = ("celery.worker.consumer.tasks:Tasks",)
    health = Health()

    def start(self, parent: Any) -> None:  # noqa: ARG002  # Celery's signature
        """The connection is there."""
        self.health.mark_connected()

    def stop(self, parent: Any) -> None:  # noqa: ARG002  # Celery's signature
        """The connection is lost, or the worker ends."""
        self.health.mark_disconnected()


class LoopHealthStep(bootsteps.StartStopStep):
    """The worker's step that feels whether its event loop turns. Set by the app: the `health`."""

    requires = ("celery.worker.components:Pool",)
    health = Health()
    #: The worker's pool of processes, once it runs.
    pool: Any = None

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """The event loop begins, or begins anew after a lost connection."""
        pool = getattr(worker.pool, "_pool", None)
        if hasattr(pool, "_all_inqueues"):  # in another pool, jobs run in the loop, for as long as they like
            type(self).pool = pool
            self.health.record_heartbeat()
            hub.call_repeatedly(_BEAT_EVERY, self.health.record_heartbeat)
