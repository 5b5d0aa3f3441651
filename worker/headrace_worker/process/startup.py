"""The start of a worker's main process: it chooses its queues, and loads and proves its models.

Models are proven (digest, warm-up, example) in the main process before the pool forks, so that the pool processes
share their memory. Only then is the worker ready.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kombu import Queue
from threadpoolctl import threadpool_limits

from headrace.errors import HeadraceError, SettingError
from headrace.wire.keys import model_name, queue_name
from headrace.wire.signing import JobKeys, Trust
from headrace_worker.execution import pool_process
from headrace_worker.models.registry import Registry
from headrace_worker.models.sync import ModelSync
from headrace_worker.process import fork_memory
from headrace_worker.settings import WorkerSettings

if TYPE_CHECKING:
    from celery import Celery

log = logging.getLogger("headrace.worker")

#: The default queue of a worker whose store has no models yet. Nothing is ever put there. It must not be `celery`,
#: the queue in which other applications keep their tasks.
_IDLE_QUEUE = "headrace.idle"


@contextlib.contextmanager
def exit_on_error() -> Iterator[None]:
    """End the worker if the block raises a HeadraceError, with its message.

    Celery ignores any other exception of a signal's receiver, and would go on without queues, models or metrics.
    """
    try:
        yield
    except HeadraceError as error:
        raise SystemExit(f"headrace: {error}") from None


def select_models(settings: WorkerSettings, queues: Sequence[str] | None) -> list[str] | None:
    """Return the models to serve: those of the queues (`-Q`), else of the setting. None is the whole store.

    A worker that serves the whole store also serves models that are added later.
    """
    if queues is not None:
        return [model for queue in queues if (model := model_name(queue))]
    return [model for model in settings.serve.split(",") if model] or None


def set_queues(app: Celery[Any], models: Iterable[str]) -> None:
    """Set the queues from which Celery consumes to those of these models."""
    app.conf.task_default_queue = _IDLE_QUEUE
    app.conf.task_queues = [Queue(name, routing_key=name) for name in map(queue_name, models)]


def load_models(settings: WorkerSettings, registry: Registry, model_sync: ModelSync) -> None:
    """Load and prove the models before the pool forks. Exit if there are models and none can be served."""
    threadpool_limits(1)  # more would not survive the fork: OpenMP waits for threads that only the parent has
    with exit_on_error():
        failures = model_sync.sync()
    if failures and not registry.contracts():
        reasons = "; ".join(map(str, failures.values()))
        raise SystemExit(f"headrace: none of the worker's models can be served: {reasons}")
    if not registry.contracts():
        log.warning("no models in %s yet; `headrace models add` adds one", settings.models)
    fork_memory.freeze_heap()
    fork_memory.use_huge_pages()
    with exit_on_error():
        pool_process.check_memory_limit(settings.memory_limit)


def remove_ready_file(settings: WorkerSettings) -> None:
    """Remove the ready file of an earlier run, which would report this one as ready too soon."""
    if settings.ready_file:
        Path(settings.ready_file).unlink(missing_ok=True)


def load_trust(settings: WorkerSettings) -> Trust | None:
    """Return the keys that jobs must be signed with; None if signatures are not checked. Raises SettingError."""
    keys = JobKeys.parse(settings.job_keys)
    if keys is None and settings.require_signed_jobs:
        raise SettingError("HEADRACE_REQUIRE_SIGNED_JOBS needs HEADRACE_JOB_KEYS: without keys no job is accepted")
    if keys is None:
        return None
    if settings.max_signature_age > settings.result_ttl:
        raise SettingError(
            f"HEADRACE_MAX_SIGNATURE_AGE is {settings.max_signature_age:,}, above HEADRACE_RESULT_TTL "
            f"({settings.result_ttl:,}): a copy of a job could run again once its outcome is forgotten"
        )
    return Trust(
        keys=keys, required=settings.require_signed_jobs, max_age=settings.max_signature_age or settings.result_ttl
    )
