"""The worker's Celery app: `celery -A headrace_worker worker`.

Celery supervises the pool, its events and its remote control; a job's own way is in `predict`.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

from headrace import __version__
from headrace.settings import load
from headrace_worker.settings import WorkerSettings
from headrace_worker.telemetry import sentry

settings = load(WorkerSettings)
sentry.start(__version__)  # before Celery's worker is imported: see telemetry/sentry.py

from celery import Task, signals  # noqa: E402
from celery.worker.consumer.consumer import Consumer  # noqa: E402

from headrace import broker, errors  # noqa: E402
from headrace.envelope import describe, from_task  # noqa: E402
from headrace.outcome import Failure, Outcome, Success  # noqa: E402
from headrace.queues import TASK, Keys  # noqa: E402
from headrace_worker import predict as prediction  # noqa: E402
from headrace_worker.deliver import deliver  # noqa: E402
from headrace_worker.failures import failure_of  # noqa: E402
from headrace_worker.serving import Serving  # noqa: E402

log = logging.getLogger("headrace.worker")
keys = Keys(settings.key_prefix)
serving = Serving(settings)

app = broker.celery_app(settings)
app.conf.update(
    result_backend=f"headrace_worker.backend:FirstOutcomeBackend+{app.conf.result_backend}",
    # A job is acknowledged when it has its outcome, and taken when a process is free to run it.
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    worker_send_task_events=True,
    worker_cancel_long_running_tasks_on_connection_loss=False,
)


@app.task(name=TASK, bind=True, throws=(errors.JobFailed,), typing=False)
def predict(self: Task[Any, Any], *args: Any, **kwargs: Any) -> str:
    """Run one job that came as an ordinary Celery task; what it returns is what Flower shows."""
    request = self.request
    job_id = str(request.id)
    try:
        job = from_task(job_id, args, kwargs, headers={"expires": request.expires, "eta": None})
    except errors.InvalidInput as error:
        outcome: Outcome = failure_of(error, from_task(job_id, ["", []], {}, headers={}))
        described = "no job"
    else:
        outcome = prediction.run([job], serving.registry, datetime.now(UTC), sentry.report)[0]
        described = describe(job.model, job.version, len(job.instances))
    deliver(serving.client, keys, [outcome], ttl=settings.result_ttl)
    match outcome:
        case Success():
            made = outcome.prediction
            return describe(made.model, made.version, len(made.predictions))
        case Failure():
            raise errors.JobFailed(
                f"{described}: {outcome.error}: {outcome.message}",
                job=job_id,
                reason=outcome.reason,
                error=outcome.error,
            )
        case _:
            outcome.get()
            raise AssertionError("an outcome that is no success raises")


@signals.celeryd_init.connect(weak=False)
def _choose_queues(options: dict[str, Any], **_: Any) -> None:
    given = options.get("queues")
    serving.choose_queues(app, given.split(",") if isinstance(given, str) else given or None)


@signals.worker_init.connect(weak=False)
def _load_models(**_: Any) -> None:
    serving.load()


@signals.worker_process_init.connect(weak=False)
def _start_pool_process(**_: Any) -> None:
    serving.after_fork()


@signals.worker_ready.connect(weak=False)
def _announce(sender: Consumer, **_: Any) -> None:
    serving.announce(sender)
