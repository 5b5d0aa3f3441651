"""The worker's Celery app: `celery -A headrace_worker worker`.

Celery supervises the pool, remote control and time limits. It takes jobs through our transport, a claim at a
time, and runs one task: `headrace.claim`. A job's own way is in `claim`, `batching`, `predict`, `deliver`.
"""

from __future__ import annotations

import atexit
import logging
import warnings
from typing import Any

from headrace.settings import load_settings
from headrace.version import __version__
from headrace_worker.execution import pool_process
from headrace_worker.settings import WorkerSettings
from headrace_worker.telemetry import sentry

settings = load_settings(WorkerSettings)
pool_process.bound_threads(settings.threads)  # before numpy is imported
sentry.start(__version__)  # before Celery's worker is imported: see telemetry/sentry.py

from celery import Task, signals  # noqa: E402
from celery.exceptions import CPendingDeprecationWarning  # noqa: E402
from celery.utils.log import get_multiprocessing_logger  # noqa: E402
from celery.worker.consumer.consumer import Consumer  # noqa: E402

from headrace.connection.celery import create_celery_app  # noqa: E402
from headrace_worker.process.dispatch import DirectDispatch, DispatchStep  # noqa: E402
from headrace_worker.process.health_steps import HealthStep, LoopHealthStep  # noqa: E402
from headrace_worker.process.pool_replacement import PoolReplacementStep  # noqa: E402
from headrace_worker.process.service import WorkerService  # noqa: E402
from headrace_worker.process.shutdown import Shutdown  # noqa: E402
from headrace_worker.process.supervision import (  # noqa: E402
    ClaimRequest,
    PruneTimers,
    ReapLostProcesses,
    ReleaseDropped,
    revoke_cancels,
)
from headrace_worker.telemetry.logs import LogFormat, find_secrets  # noqa: E402
from headrace_worker.transport import Hook, broker_settings, silence_timeout  # noqa: E402
from headrace_worker.transport.leases import Claim  # noqa: E402
from headrace_worker.transport.message import CLAIM_TASK, SERIALIZER  # noqa: E402

serving = WorkerService(settings)
handover = DirectDispatch()
form = LogFormat(settings.log_format, find_secrets(settings.redis_url))

app = create_celery_app(settings)
app.conf.update(
    broker_settings(app.conf.broker_url),
    # Claims come in a form of their own, which only our transport hands over.
    accept_content=["json", SERIALIZER],
    # A claim is acknowledged when its jobs have their outcomes, and taken when a process is free to run it.
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    worker_send_task_events=True,
    # What runs when the connection is lost runs on, and takes its place in the pool: the transport counts it.
    worker_cancel_long_running_tasks_on_connection_loss=False,
    worker_enable_prefetch_count_reduction=False,
    # A Redis that is full, a replica, or cannot write its disk refuses what a worker declares when it connects.
    broker_channel_error_retry=True,
    worker_max_memory_per_child=pool_process.recycle_at(settings.memory_limit),
)
app.conf.broker_transport_options.update(
    limits_for=Hook(serving.limits_for),
    share_keeper=Hook(serving.keeper_for),
    on_delivered=Hook(handover.write),
    lease_seconds=settings.lease,
    release_on_close=False,
    # What Celery itself sends, a heartbeat for one, would wait for ever on a half-open connection.
    socket_timeout=min(settings.command_timeout, silence_timeout(settings.lease)),
)
app.steps["consumer"].update({ReleaseDropped, HealthStep})
DispatchStep.handover = handover
ReleaseDropped.keeper = serving.keeper
app.steps["worker"].update(
    {PruneTimers, DispatchStep, ReapLostProcesses, LoopHealthStep, Shutdown, PoolReplacementStep}
)
HealthStep.health = LoopHealthStep.health = serving.watch.health
ClaimRequest.lost = staticmethod(serving.watch.lost)
PoolReplacementStep.swap = serving.swap
Shutdown.drain, Shutdown.release = settings.drain, serving.stop
revoke_cancels(serving.cancel)


@app.task(
    name=CLAIM_TASK,
    bind=True,
    Request=ClaimRequest,
    ignore_result=True,
    send_events=False,  # each job has events of its own
    acks_on_failure_or_timeout=False,
    reject_on_worker_lost=True,
    typing=False,
)
def claim(self: Task[Any, Any], claimed: Claim) -> None:
    """Run the jobs of a claim."""
    serving.run(app, str(self.request.hostname), claimed)


@signals.celeryd_init.connect(weak=False)
def _choose_queues(sender: str, options: dict[str, Any], **_: Any) -> None:
    form.worker = str(sender)
    given = options.get("queues")
    serving.choose_queues(app, given.split(",") if isinstance(given, str) else given or None)


@signals.worker_init.connect(weak=False)
def _load_models(**_: Any) -> None:
    # Celery warns, at every lost connection, of a setting that is chosen above.
    warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)
    form.install()
    serving.watch.start()
    atexit.register(serving.watch.stop)
    pool_process.prepare(app)
    serving.load()
    atexit.register(serving.stop)  # however the worker ends: Celery tells of no cold shutdown


@signals.worker_process_init.connect(weak=False)
def _start_pool_process(**_: Any) -> None:
    serving.after_fork()
    serving.watch.after_fork()
    serving.warm_up(app, form.worker)


@signals.worker_process_shutdown.connect(weak=False)
def _end_pool_process(**_: Any) -> None:
    serving.watch.process_ends()


@signals.worker_ready.connect(weak=False)
def _announce(sender: Consumer, **_: Any) -> None:
    serving.announce(sender)
    serving.watch.ready()


@signals.worker_shutting_down.connect(weak=False)
def _say_stopping(**_: Any) -> None:
    serving.watch.stopping()


@signals.worker_shutdown.connect(weak=False)
def _give_back(**_: Any) -> None:
    serving.stop()


@signals.after_setup_logger.connect(weak=False)
def _form_log(logger: logging.Logger, **_: Any) -> None:
    form.apply_to(logger, get_multiprocessing_logger())
    # A line for each claim received and succeeded tells nothing that events do not.
    for name in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)


@signals.after_setup_task_logger.connect(weak=False)
def _form_task_log(logger: logging.Logger, **_: Any) -> None:
    form.apply_to(logger)
