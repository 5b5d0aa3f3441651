"""The start of a worker's main process: it chooses its queues, and loads and proves its models.

Models are proven (digest, warm-up, example) in the main process before the pool forks, so that the pool processes
share their memory. Only then is the worker ready.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kombu import Queue
from threadpoolctl import threadpool_limits

from headrace.errors import HeadraceError, SettingError
from headrace.text import format_duration, plural
from headrace.wire.queues import bulk_queue_name, model_name, queue_name, queue_names
from headrace.wire.signing import JobKeys, Trust
from headrace_worker.bulk.locations import check_locations
from headrace_worker.execution import pool_process
from headrace_worker.models.registry import Registry
from headrace_worker.models.sync import ModelSync
from headrace_worker.process import fork_memory
from headrace_worker.settings import WorkerSettings

if TYPE_CHECKING:
    from celery import Celery

log = logging.getLogger("headrace.worker")

#: The fraction of a container's memory for its pool processes together. The rest is for the main process.
_SHARED_FRACTION = 0.9
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
        return list(dict.fromkeys(model for queue in queues if (model := model_name(queue))))
    return [model for model in settings.serve.split(",") if model] or None


def choose_queues(settings: WorkerSettings, model: str) -> tuple[str, ...]:
    """Return the queues of a model that a worker serves, unless its options name others."""
    if settings.bulk_only:
        return (bulk_queue_name(model),)
    return queue_names(model) if settings.locations else (queue_name(model),)


def count_bulk_processes(settings: WorkerSettings, processes: int) -> int:
    """Return how many of the pool processes of a worker may run bulk jobs at once."""
    if settings.bulk_only:
        return processes
    return settings.bulk_processes or max(1, processes - 1)


def set_queues(app: Celery[Any], queues: Iterable[str]) -> None:
    """Set the queues from which Celery consumes."""
    app.conf.task_default_queue = _IDLE_QUEUE
    app.conf.task_queues = [Queue(name, routing_key=name) for name in queues]


def load_models(settings: WorkerSettings, registry: Registry, model_sync: ModelSync) -> None:
    """Load and prove the models before the pool forks. Exit if there are models and none can be served."""
    threadpool_limits(1)  # more would not survive the fork: OpenMP waits for threads that only the parent has
    log.info("loading the models of %s", registry.store.title)
    started_at = time.monotonic()
    with exit_on_error():
        check_locations(settings.locations)
        failures = model_sync.sync()
    if failures and not registry.contracts():
        reasons = "; ".join(map(str, failures.values()))
        raise SystemExit(f"headrace: none of the worker's models can be served: {reasons}")
    if not registry.contracts():
        log.warning("no models in %s yet; `headrace models add` adds one", settings.models)
    else:
        count = len(model_sync.loaded_versions())
        log.info(
            "loaded %s in %s; starting the pool processes",
            plural(count, "version"),
            format_duration(1000 * (time.monotonic() - started_at)),
        )
    fork_memory.freeze_heap()
    fork_memory.use_huge_pages()
    with exit_on_error():
        pool_process.check_memory_limit(settings.memory_limit)


def describe_memory(*, container: int, processes: int, limit: int, used: int, copied: int = 0) -> tuple[bool, str]:
    """Describe whether the pool processes fit into their container or service, of `container` bytes.

    `limit` is the limit of a process, 0 without one; `used` are the bytes of a process with its models, which most
    processes share; `copied` are the bytes of models that each loads for itself. Return whether the text is a
    warning; "" if all fits.
    """
    share = int(_SHARED_FRACTION * container / processes)
    needed = used + processes * copied
    if needed > container:
        return True, (
            f"{processes} pool processes need at least {needed} bytes with their models, and this container or "
            f"service has {container}: it may be ended with all its jobs. Give it more memory, or lower "
            "--concurrency"
        )
    if limit * processes > container:
        return True, (
            f"{processes} pool processes of HEADRACE_MEMORY_LIMIT={limit} exceed the {container} bytes of this "
            "container or service: it may be ended with all its jobs. Set "
            f"HEADRACE_MEMORY_LIMIT={share}, or lower --concurrency"
        )
    if not limit:
        return False, (
            f"this container or service has {container} bytes for {processes} pool processes without a limit: a "
            f"job that takes too much ends them all. Set HEADRACE_MEMORY_LIMIT={share}, and it fails alone"
        )
    return False, ""


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
