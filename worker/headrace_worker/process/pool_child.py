"""A pool process: it isolates itself after the fork, makes its claim runner, and runs claims."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import redis
from threadpoolctl import threadpool_limits

from headrace.catalog.workers import decode_loaded, read_loaded
from headrace.connection.commands import execute
from headrace.connection.connect import connect
from headrace.connection.pipelined import call_script
from headrace.connection.server_time import decode_server_time
from headrace.results.letter_scripts import DeadLetterLimits
from headrace.wire.keys import Keys
from headrace.wire.limits import JobLimits
from headrace.wire.signing import JobKeys
from headrace_worker.drift.recorder import DriftRecorder
from headrace_worker.execution import pool_process
from headrace_worker.execution.bulk_claim import BulkJobs
from headrace_worker.execution.runner import ClaimRunner
from headrace_worker.models.registry import Registry
from headrace_worker.process.follow_up_service import FollowUpService
from headrace_worker.process.monitoring import Monitoring
from headrace_worker.process.startup import load_trust
from headrace_worker.rollout.shadow import ShadowRunner
from headrace_worker.settings import WorkerSettings
from headrace_worker.telemetry import job_log, sentry, tracing
from headrace_worker.telemetry.claim_log import ClaimLog
from headrace_worker.telemetry.events import Events
from headrace_worker.telemetry.job_log import JobLog
from headrace_worker.telemetry.run_reports import RunReports
from headrace_worker.threads import bound_threads
from headrace_worker.transport.claims import Claim
from headrace_worker.transport.leases import Leases

if TYPE_CHECKING:
    from celery import Celery

#: Seconds that a starting pool process waits for Redis: Celery ends a process that is not ready within 4.
_WARM_UP_TIMEOUT = 0.5
#: Seconds for which the versions of other workers are remembered.
_OTHER_WORKERS_TTL = 1.0


class PoolChild:
    """The parts of a worker that run in its pool processes; in the main process if the pool does not fork."""

    def __init__(
        self,
        settings: WorkerSettings,
        registry: Registry,
        client: Callable[[], redis.Redis],
        monitoring: Monitoring,
        *,
        dead_letter_limits: DeadLetterLimits,
        follow_ups: FollowUpService,
    ) -> None:
        self._settings, self._registry, self._client = settings, registry, client
        self._follow_ups = follow_ups
        self._monitoring, self._dead_letter_limits = monitoring, dead_letter_limits
        self._keys = Keys(settings.key_prefix)
        self._trust = load_trust(settings)
        self._main_pid = os.getpid()
        self._hostname = ""
        self._runner: ClaimRunner | None = None
        #: By model: when the other workers' versions were read (monotonic), and these.
        self._other_workers: dict[str, tuple[float, list[tuple[str, ...]]]] = {}

    def after_fork(self) -> None:
        """Bring a process that was just forked into a state of its own."""
        self._registry.after_fork()
        pool_process.isolate(self._settings.memory_limit)
        if self._settings.threads > 1:
            bound_threads(self._settings.threads)
            threadpool_limits(self._settings.threads)
        self._monitoring.after_fork()

    def warm_up(self, app: Celery[Any], hostname: str) -> None:
        """Make the claim runner before the first claim: a fork copies each page that it first touches.

        Models are not run: if one harms its process, that must happen to its own jobs. Only versions that must not
        be loaded before the fork are loaded and proven. Celery sends the process no claim before that.
        """
        self.get_runner(app, hostname)
        quick = msgspec.structs.replace(
            self._settings, connect_timeout=_WARM_UP_TIMEOUT, command_timeout=_WARM_UP_TIMEOUT
        )
        with contextlib.suppress(redis.RedisError), connect(quick, retries=0) as client:
            client.ping()
        if os.getpid() != self._main_pid and self._registry.deferred():
            self._load_deferred()

    def _load_deferred(self) -> None:
        loads = self._monitoring.pool_loads
        if loads.begin():
            refused = self._registry.load_deferred()
        else:
            refused = self._registry.refuse_deferred(
                "the last pool processes ended while they loaded their models"
            )
        loads.end(refused=bool(refused))

    def run(self, app: Celery[Any], hostname: str, claim: Claim) -> None:
        """Run a claim. Raises redis.RedisError if Redis stays unreachable."""
        runner = self.get_runner(app, hostname)
        in_main_process = os.getpid() == self._main_pid
        if claim.route is not None and not in_main_process:
            self._registry.apply_route(claim.route)
        with contextlib.nullcontext() if in_main_process else pool_process.handle_claim_signals():
            runner.run(claim)

    def get_runner(self, app: Celery[Any], hostname: str) -> ClaimRunner:
        """Return the claim runner of this process; the first call makes it."""
        if self._runner is None:
            self._hostname, self._registry.other_workers = hostname, self._versions_of_other_workers
            client, settings = self._client(), self._settings
            self._runner = ClaimRunner(
                client,
                # `publish` repeats a call for as long as it takes.
                Leases(client, self._keys, self._dead_letter_limits, call=call_script),
                self._registry,
                worker=hostname,
                keys=self._keys,
                ttl=settings.result_ttl,
                record_ttl=settings.job_ttl,
                events=self._events(app, client) if settings.events else None,
                planner=self._follow_ups.planner,
                sender=self._follow_ups.sender,
                bulk=BulkJobs(
                    client,
                    self._keys,
                    self._registry,
                    settings.locations,
                    JobKeys.parse(settings.job_keys),
                ),
                trust=self._trust,
                job_limits=JobLimits(settings.max_job_bytes, settings.max_job_values),
                listeners=[
                    ClaimLog(),
                    *([JobLog()] if job_log.is_wanted(settings.log_jobs) else []),
                    RunReports(client, self._keys),
                    *sentry.listeners(),
                    *tracing.listeners(),
                    *self._monitoring.make_listeners(),
                    ShadowRunner(client, self._keys, self._registry),
                    DriftRecorder(client, self._keys),
                ],
            )
        return self._runner

    def _events(self, app: Celery[Any], client: redis.Redis) -> Events:
        database = client.connection_pool.connection_kwargs.get("db", 0)
        return Events(
            client,
            hostname=self._hostname,
            channel=f"{self._keys.prefix}/{database}.celeryev/task.multi",
            clock=app.clock.forward,  # type: ignore[attr-defined]  # not in celery-types
            version_of=lambda job: self._registry.version_of(job.model, job.version, job.id),
            share=self._settings.events,
        )

    def _versions_of_other_workers(self, model: str) -> list[tuple[str, ...]]:
        """Return the versions of a model that each other worker has loaded. Raises redis.RedisError."""
        read_at, versions = self._other_workers.get(model, (0.0, []))
        if time.monotonic() - read_at > _OTHER_WORKERS_TTL:
            client = self._client()
            now_ms = decode_server_time(client.time())
            workers = decode_loaded(model, execute(client, read_loaded(self._keys, model)), now_ms)
            versions = [status.versions for worker, status in workers.items() if worker != self._hostname]
            self._other_workers[model] = (time.monotonic(), versions)
        return versions
