"""Steps of Celery's blueprints that report the connection and the event loop to the worker's health."""

from __future__ import annotations

from typing import Any

from celery import bootsteps

from headrace_worker.telemetry.health import CONSUMER, Health

#: Seconds between two heartbeats of the event loop.
_HEARTBEAT_SECONDS = 1.0
#: Seconds that a connection must have served before an outage counts as over: a read-only replica accepts
#: connections too.
_STABLE_SECONDS = 0.5


class HealthStep(bootsteps.StartStopStep):
    """The step of the consumer's blueprint that reports the connection. The app sets `health`."""

    requires = ("celery.worker.consumer.tasks:Tasks",)
    health = Health()

    def start(self, parent: Any) -> None:
        """Report that the worker is connected to Redis."""
        self.health.mark_connected()
        # Celery cancels this timer if the connection fails before it is due.
        parent.timer.call_after(_STABLE_SECONDS, self.health.outages.succeeded, (CONSUMER,))

    def stop(self, parent: Any) -> None:  # noqa: ARG002  # Celery's signature
        """Report that the connection is lost, or that the worker ends."""
        self.health.mark_disconnected()


class LoopHealthStep(bootsteps.StartStopStep):
    """The step of the worker's blueprint that reports that the event loop turns. The app sets `health`."""

    requires = ("celery.worker.components:Pool",)
    health = Health()
    #: The worker's pool of processes, once it runs.
    pool: Any = None

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """Start the heartbeat. Celery calls this when its event loop starts and after a lost connection."""
        pool = getattr(worker.pool, "_pool", None)
        if hasattr(pool, "_all_inqueues"):  # in any other pool, jobs run in the event loop and may hold it up
            type(self).pool = pool
            self.health.record_heartbeat()
            hub.call_repeatedly(_HEARTBEAT_SECONDS, self.health.record_heartbeat)
