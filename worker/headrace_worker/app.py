"""The worker's Celery app: `celery -A headrace_worker worker`.

Celery supervises the pool, the time limits and remote control. It receives claims through Headrace's transport and
runs each as one task, `headrace.claim`. `execution` runs the jobs of a claim; `process` adapts Celery to claims.
"""

from __future__ import annotations

import atexit
import logging
from typing import Any

from headrace.cli.signals import exit_on_sigterm_as_process_1
from headrace.settings import is_cluster_url, load_settings
from headrace.version import __version__
from headrace_worker.execution import pool_process
from headrace_worker.settings import WorkerSettings
from headrace_worker.telemetry import sentry
from headrace_worker.threads import bound_threads

exit_on_sigterm_as_process_1()  # Celery's own handlers follow, after seconds of imports
settings = load_settings(WorkerSettings)
bound_threads(1)  # before numpy is imported; pool processes set their own number
sentry.start(__version__)  # before Celery's worker is imported: see telemetry/sentry.py

from celery import Task, signals  # noqa: E402
from celery.utils.log import get_multiprocessing_logger  # noqa: E402

from headrace.connection.celery import create_celery_app  # noqa: E402
from headrace_worker.container import count_cores  # noqa: E402
from headrace_worker.process.consumer import Consumer  # noqa: E402
from headrace_worker.process.dispatch import DirectDispatch, DispatchStep  # noqa: E402
from headrace_worker.process.health_steps import HealthStep, LoopHealthStep  # noqa: E402
from headrace_worker.process.pool_kinds import check_pool  # noqa: E402
from headrace_worker.process.pool_replacement import PoolReplacementStep  # noqa: E402
from headrace_worker.process.remote_control import cancel_on_revoke  # noqa: E402
from headrace_worker.process.service import WorkerService  # noqa: E402
from headrace_worker.process.shutdown import Shutdown  # noqa: E402
from headrace_worker.process.startup import exit_on_error  # noqa: E402
from headrace_worker.process.supervision import (  # noqa: E402
    ClaimRequest,
    PruneTimers,
    ReapLostProcesses,
    ReleaseDropped,
)
from headrace_worker.telemetry.logs import LogFormat, find_secrets  # noqa: E402
from headrace_worker.transport import Hook, broker_settings, silence_timeout  # noqa: E402
from headrace_worker.transport.claims import Claim  # noqa: E402
from headrace_worker.transport.message import CLAIM_TASK, SERIALIZER  # noqa: E402

service = WorkerService(settings)
dispatch = DirectDispatch()
log_format = LogFormat(settings.log_format, find_secrets(settings.redis_url))

app = create_celery_app(settings)
# docs/reference/celery-settings.md says of each setting of Celery why it is set, or not.
app.conf.update(
    broker_settings(app.conf.broker_url, in_cluster=is_cluster_url(settings.redis_url)),
    # Claims have a serialisation of their own, which only Headrace's transport delivers.
    accept_content=["json", SERIALIZER],
    # Acknowledge a claim when its jobs have their outcomes; claim when a process is free to run the claim.
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    # The cores of this process, by its affinity and its cgroups: Celery counts those of the machine.
    worker_concurrency=count_cores(),
    worker_send_task_events=True,
    worker_pool_start_method="fork",  # pool processes share the loaded models
    # A claim that runs when the connection is lost goes on, and occupies its process: the transport counts it.
    worker_cancel_long_running_tasks_on_connection_loss=False,
    worker_enable_prefetch_count_reduction=False,
    # A worker waits for Redis as long as it takes: its consumer has pauses of its own.
    worker_consumer=f"{Consumer.__module__}:{Consumer.__name__}",
    broker_connection_max_retries=None,
    # A Redis that is full, read-only or unable to write its disk refuses the declarations of a connecting worker.
    broker_channel_error_retry=True,
    worker_max_memory_per_child=pool_process.compute_max_resident_kilobytes(settings.memory_limit),
)
app.conf.broker_transport_options.update(
    limits_for=Hook(service.limits_for),
    share_keeper=Hook(service.keeper_for),
    give_up=Hook(service.give_up),
    on_delivered=Hook(dispatch.write),
    lease_seconds=settings.lease,
    result_ttl=settings.result_ttl,
    requeue_on_close=False,
    # Celery's own commands, for instance a heartbeat, would wait without end on a half-open connection.
    socket_timeout=min(settings.command_timeout, silence_timeout(settings.lease)),
)
Consumer.outages = service.monitoring.health.outages
app.steps["consumer"].update({ReleaseDropped, HealthStep})
DispatchStep.dispatch = dispatch
ReleaseDropped.lease_keeper = service.lease_keeper
app.steps["worker"].update(
    {PruneTimers, DispatchStep, ReapLostProcesses, LoopHealthStep, Shutdown, PoolReplacementStep}
)
HealthStep.health = LoopHealthStep.health = service.monitoring.health
ClaimRequest.on_lost = staticmethod(service.monitoring.count_lost_claim)
PoolReplacementStep.pool_replacement = service.pool_replacement
Shutdown.drain, Shutdown.release = settings.drain, service.stop
cancel_on_revoke(service.cancel)


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
    service.pool_child.run(app, str(self.request.hostname), claimed)


@signals.celeryd_init.connect(weak=False)
def _choose_queues(sender: str, options: dict[str, Any], **_: Any) -> None:
    log_format.worker = str(sender)
    with exit_on_error():
        check_pool(options.get("pool"))
    service.monitoring.start()  # first of all: a startup probe waits for it
    atexit.register(service.monitoring.stop)
    queues, excluded = (_split(options.get(name)) for name in ("queues", "exclude_queues"))
    service.choose_queues(app, queues or None, excluded)


def _split(queues: str | list[str] | None) -> list[str]:
    """Return the queues of an option of Celery's, which are a list or a text with commas."""
    return queues.split(",") if isinstance(queues, str) else queues or []


@signals.worker_init.connect(weak=False)
def _load_models(sender: Any, **_: Any) -> None:
    log_format.install(sender.loglevel)
    pool_process.prepare(app)
    service.load_models()
    atexit.register(service.stop)  # Celery sends no signal at a cold shutdown


@signals.worker_process_init.connect(weak=False)
def _start_pool_process(**_: Any) -> None:
    service.pool_child.after_fork()
    service.pool_child.warm_up(app, log_format.worker)


@signals.worker_process_shutdown.connect(weak=False)
def _end_pool_process(**_: Any) -> None:
    service.monitoring.close_prediction_log()


@signals.worker_ready.connect(weak=False)
def _announce(sender: Consumer, **_: Any) -> None:
    service.announce(sender)


@signals.worker_shutting_down.connect(weak=False)
def _mark_stopping(**_: Any) -> None:
    service.monitoring.mark_stopping()


@signals.worker_shutdown.connect(weak=False)
def _release_claims(**_: Any) -> None:
    service.stop()


@signals.after_setup_logger.connect(weak=False)
def _format_log(logger: logging.Logger, **_: Any) -> None:
    log_format.apply_to(logger, get_multiprocessing_logger())
    # Celery logs two lines for each claim, which say less than the events do.
    for name in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)


@signals.after_setup_task_logger.connect(weak=False)
def _format_task_log(logger: logging.Logger, **_: Any) -> None:
    log_format.apply_to(logger)
