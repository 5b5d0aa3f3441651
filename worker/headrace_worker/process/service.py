"""What a worker serves: the models it loads, the queues it takes from, the contracts it publishes.

Models are loaded and proven (digest, warm-up, example) in the main process before the pool forks, so that
the pool processes share their memory; only then is the worker ready. Unless it was given queues or models,
a worker serves all models of the store, also one added later.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import redis
from kombu import Queue
from threadpoolctl import threadpool_limits

from headrace.catalog.workers import decode_loaded, read_loaded
from headrace.client import Client
from headrace.connection.commands import execute
from headrace.connection.connect import connect
from headrace.connection.server_time import decode_server_time
from headrace.errors import HeadraceError, SettingError
from headrace.wire.keys import Keys, model_name, queue_name
from headrace.wire.signing import JobKeys, Trust
from headrace_worker.doctor import RedisCheck
from headrace_worker.drift.recorder import DriftRecorder
from headrace_worker.execution import pool_process
from headrace_worker.execution.runner import ClaimRunner
from headrace_worker.models.registry import Registry
from headrace_worker.models.sync import SYNC_SECONDS, ModelSync
from headrace_worker.process import fork_memory
from headrace_worker.process.monitoring import Monitoring
from headrace_worker.process.pool_replacement import PoolReplacement
from headrace_worker.rollout.canary import CanaryJudge, CanaryLimits
from headrace_worker.rollout.shadow import ShadowRunner
from headrace_worker.settings import WorkerSettings
from headrace_worker.store.store import Store
from headrace_worker.telemetry import sentry, tracing
from headrace_worker.telemetry.claim_log import ClaimLog
from headrace_worker.telemetry.events import Events
from headrace_worker.transport import ClaimingChannel, LeaseKeeper, make_keeper, silence_timeout
from headrace_worker.transport.leases import Claim, ClaimLimits, DeadLetterLimits, Leases

if TYPE_CHECKING:
    from celery import Celery
    from celery.worker.consumer.consumer import Consumer

log = logging.getLogger("headrace.worker")

#: Seconds between two things that stop the event loop for some milliseconds: jobs that waited have left by then.
_BETWEEN_HALTS = 0.05
#: Seconds after which the worker counts as swapped though an old process still runs a claim.
_SWAPPED_WITHIN = 10.0
#: Seconds a thread that loads may keep the event loop waiting; Python's own are 0.005.
_SWITCH_EVERY = 0.0005
#: Seconds for which a pool process that starts waits for Redis: Celery ends one that is not ready within 4.
_WARM_WITHIN = 0.5
#: Seconds for which what other workers have said is believed without asking again.
_OTHERS_FOR = 1.0


class WorkerService:
    """The models, queues and Redis connection of one worker."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self.registry = Registry(Store.from_settings(settings, cached=True), settings)
        self._keys = Keys(settings.key_prefix)
        self._client: redis.Redis | None = None
        self._client_pid = 0
        #: The models asked for; None is all of the store, whenever added.
        self._asked: list[str] | None = [name for name in settings.serve.split(",") if name] or None
        self.watch = Monitoring(settings, self.registry)
        self.swap = PoolReplacement()
        self._forked_with: frozenset[tuple[str, str]] = frozenset()
        self._trust = _trust_of(settings)
        self._canaries = CanaryJudge(
            lambda: self.client,
            self._keys,
            CanaryLimits(
                min_jobs=settings.canary_jobs,
                max_extra_failures=settings.canary_failures,
                max_slowdown=settings.canary_slower,
            ),
        )
        self._hostname = ""
        self._ending = threading.Event()
        self._others: dict[str, tuple[float, list[tuple[str, ...]]]] = {}
        self._main_pid = os.getpid()
        self._check = RedisCheck(settings)
        self._bounds = DeadLetterLimits(
            max_count=settings.dead_letters_max, max_age_seconds=settings.dead_letters_ttl
        )
        self._keeper: LeaseKeeper | None = None
        self._runner: ClaimRunner | None = None
        self._stopping = threading.Lock()

    @property
    def client(self) -> redis.Redis:
        """Connections to Redis, for the process that asks: a pool process has its own."""
        if self._client is None or self._client_pid != os.getpid():
            answers = min(self.settings.command_timeout, silence_timeout(self.settings.lease))
            settings = msgspec.structs.replace(self.settings, command_timeout=answers)
            self._client, self._client_pid = connect(settings), os.getpid()
        return self._client

    def runner(self, app: Celery[Any], hostname: str) -> ClaimRunner:
        """What runs claims in this pool process."""
        if self._runner is None:
            self._hostname, self.registry.other_workers = hostname, self._others_of
            keys, client = self._keys, self.client
            database = client.connection_pool.connection_kwargs.get("db", 0)
            events = Events(
                client,
                hostname=hostname,
                channel=f"{keys.prefix}/{database}.celeryev/task.multi",
                clock=app.clock.forward,  # type: ignore[attr-defined]  # not in celery-types
                share=self.settings.events,
            )
            self._runner = ClaimRunner(
                client,
                Leases(client, keys, self._bounds),
                self.registry,
                worker=hostname,
                result_key=keys.result,
                ttl=self.settings.result_ttl,
                events=events if self.settings.events else None,
                trust=self._trust,
                listeners=[
                    ClaimLog(),
                    *sentry.listeners(),
                    *tracing.listeners(),
                    *self.watch.listeners(),
                    ShadowRunner(client, keys, self.registry),
                    DriftRecorder(client, keys),
                ],
            )
        return self._runner

    def _others_of(self, model: str) -> list[tuple[str, ...]]:
        """The versions that each other worker has of a model."""
        at, others = self._others.get(model, (0.0, []))
        if time.monotonic() - at > _OTHERS_FOR:
            now_ms = decode_server_time(self.client.time())
            reply = execute(self.client, read_loaded(self._keys, model))
            said = decode_loaded(reply, now_ms)
            others = [one.versions for name, one in said.items() if name != self._hostname]
            self._others[model] = (time.monotonic(), others)
        return others

    def limits_for(self, queue: str) -> ClaimLimits:
        """What a claim may take of a queue: as much as its model takes in one batch."""
        model = model_name(queue)
        if model is None:
            return ClaimLimits(queue=queue)
        limits, route = self.registry.limits(model), self.registry.route(model)
        hard = limits.time_limit or self.settings.time_limit
        soft = limits.soft_time_limit
        return ClaimLimits(
            queue=queue,
            jobs=min(self.settings.claim_jobs, limits.max_batch_instances),
            bytes=limits.max_batch_bytes,
            wait=limits.max_batch_wait,
            time_limits=(hard, soft if soft and soft < hard else None),
            route=route,
            # The jobs of a model that is not served wait for a worker that serves it, or for this one to.
            claims=limits.max_claims if route is not None else 0,
        )

    def keeper_for(self, channel: ClaimingChannel) -> LeaseKeeper:
        """The keeper of this worker's leases: one, whatever becomes of connections."""
        if self._keeper is None:
            self._keeper = make_keeper(channel, self._bounds)
            self._keeper.on_swept = sentry.check_in
            self._keeper.on_request, self._keeper.on_reply = (
                self.watch.health.mark_request_sent,
                self.watch.health.mark_reply_received,
            )
        return self._keeper

    def keeper(self) -> LeaseKeeper | None:
        """The keeper of this worker's leases, once it has one."""
        return self._keeper

    def cancel(self, jobs: Sequence[str]) -> None:
        """Cancel jobs that have no outcome yet."""
        with Client(settings=self.settings) as client:
            for job in jobs:
                with contextlib.suppress(HeadraceError):
                    client.job(job).cancel()

    def stop(self) -> None:
        """Put back what was claimed and not run: the worker ends."""
        with self._stopping:  # the main thread ends while another puts back
            self._ending.set()
            if self._keeper is not None and (released := self._keeper.close()):
                log.info("put %d claims back", released)
            with contextlib.suppress(redis.RedisError):
                self._following.withdraw(self._hostname)

    def choose_queues(self, app: Celery[Any], queues: list[str] | None) -> None:
        """Set the queues Celery takes from: those given to it (`-Q`), else those of the models served."""
        if queues is not None:
            self._asked = [model for queue in queues if (model := model_name(queue))]
        self._following = ModelSync(self.registry, lambda: self.client, self._keys, self._asked)
        try:
            models = self._asked if self._asked is not None else self.registry.store.models()
        except HeadraceError as error:
            # Celery minds nothing less, and would take from its default queue.
            raise SystemExit(f"headrace: {error}") from None
        # Without models yet, Celery falls back to the default queue: one of our own, where nothing is put,
        # never `celery`, where other applications keep their tasks.
        app.conf.task_default_queue = "headrace.idle"
        app.conf.task_queues = [_queue(model) for model in models]

    def load(self) -> None:
        """Load and prove the models, before the pool forks. Exits when there are models and none can serve."""
        if self.settings.ready_file:  # one left by a former run would have us pass for ready
            Path(self.settings.ready_file).unlink(missing_ok=True)
        self._check_redis()
        threadpool_limits(self.settings.threads)
        try:
            failures = self._following.sync()
        except HeadraceError as error:
            raise SystemExit(f"headrace: {error}") from None
        if failures and not self.registry.contracts():
            raise SystemExit("headrace: no worker without its models: " + "; ".join(map(str, failures.values())))
        if not self.registry.contracts():
            log.warning("no models in %s yet; `headrace models add` adds one", self.settings.models)
        fork_memory.freeze_heap()
        fork_memory.use_huge_pages()
        self._check_memory_limit()

    def _check_memory_limit(self) -> None:
        try:
            pool_process.check_memory_limit(self.settings.memory_limit)
        except SettingError as error:
            raise SystemExit(f"headrace: {error}") from None

    def _check_redis(self) -> None:
        try:
            self._check(self.client)
        except SettingError as error:
            # Of a signal's receiver, Celery minds nothing less.
            raise SystemExit(f"headrace: {error}") from None

    def after_fork(self) -> None:
        """Make a pool process ready."""
        self.registry.after_fork()
        pool_process.isolate(self.settings.memory_limit)

    def warm_up(self, app: Celery[Any], hostname: str) -> None:
        """Make what runs claims: a fork copies each page it touches first, and no job is to wait for that.

        Models are left alone: what one does to its process is to befall its own jobs.
        """
        self.runner(app, hostname)
        quick = msgspec.structs.replace(self.settings, connect_timeout=_WARM_WITHIN, command_timeout=_WARM_WITHIN)
        with contextlib.suppress(redis.RedisError), connect(quick, retries=0) as client:
            client.ping()

    def run(self, app: Celery[Any], hostname: str, claim: Claim) -> None:
        """Run a claim, in a pool process if there are any."""
        runner = self.runner(app, hostname)
        if claim.route is not None and os.getpid() != self._main_pid:
            self.registry.apply_route(claim.route)
        with contextlib.nullcontext() if os.getpid() == self._main_pid else pool_process.running():
            runner.run(claim)

    def announce(self, consumer: Consumer) -> None:
        """Tell what is served, and go on following the aliases and the store."""
        self._check_redis()  # again, where Redis was away before
        self._hostname = str(consumer.hostname)
        self._following.sync()
        self._forked_with = self._following.loaded_versions()
        self._tell()
        if self.settings.ready_file:
            Path(self.settings.ready_file).touch()
        threading.Thread(target=self._follow, args=(consumer,), name="headrace-models", daemon=True).start()

    def _follow(self, consumer: Consumer) -> None:
        # A thread: loading takes seconds, and Celery's loop must answer meanwhile, and soon have its turn.
        sys.setswitchinterval(_SWITCH_EVERY)
        while not self._ending.wait(SYNC_SECONDS):
            try:
                self._following.sync()
                if self._following.loaded_versions() != self._forked_with:
                    self._forked_with = self._following.loaded_versions()
                    threadpool_limits(self.settings.threads)  # of the libraries that came with it, too
                    fork_memory.freeze_heap()
                    self._ending.wait(_BETWEEN_HALTS)
                    self.swap.begin()
                    self.swap.wait(_SWAPPED_WITHIN)
                for model in self.registry.models():
                    queue = queue_name(model)
                    if self._asked is None and queue not in consumer.app.amqp.queues.consume_from:
                        consumer.call_soon(consumer.add_task_queue, queue)
            except (HeadraceError, OSError) as error:
                log.warning("could not look for models: %s", error)
            self._tell()

    def _tell(self) -> None:
        try:
            self._following.report(self._hostname)
            self._canaries.check(self._following.aliases)
        except redis.RedisError as error:
            log.warning("could not tell what is served, will try again: %s", error)


def _trust_of(settings: WorkerSettings) -> Trust | None:
    keys = JobKeys.parse(settings.job_keys)
    if keys is None and settings.require_signed_jobs:
        raise SettingError("HEADRACE_REQUIRE_SIGNED_JOBS needs HEADRACE_JOB_KEYS: without keys no job would count")
    return Trust(keys=keys, required=settings.require_signed_jobs) if keys is not None else None


def _queue(model: str) -> Queue:
    name = queue_name(model)
    return Queue(name, routing_key=name)
