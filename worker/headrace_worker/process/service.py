"""One worker: its models, its leases and its monitoring, wired together. The Celery app calls it."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis

from headrace.client import Client
from headrace.errors import HeadraceError
from headrace.results.letter_scripts import DeadLetterLimits
from headrace.wire.keys import Keys
from headrace.wire.queues import is_bulk_queue, model_name
from headrace_worker.container import read_memory_limit
from headrace_worker.doctor import RedisCheck
from headrace_worker.execution import pool_process
from headrace_worker.execution.columns import accepted_forms
from headrace_worker.execution.exhausted import give_up_exhausted
from headrace_worker.models.changes import Changes
from headrace_worker.models.loader import LOAD_SECONDS
from headrace_worker.models.registry import Registry
from headrace_worker.models.sync import ModelSync
from headrace_worker.process.follow_up_service import LATE_SECONDS as FOLLOW_UPS_LATE_SECONDS
from headrace_worker.process.follow_up_service import FollowUpService
from headrace_worker.process.keeper_duties import KeeperDuties
from headrace_worker.process.model_follower import LATE_SECONDS, SIGNS_LATE_SECONDS, ModelFollower
from headrace_worker.process.monitoring import Monitoring
from headrace_worker.process.pauses import LATE_SECONDS as PAUSES_LATE_SECONDS
from headrace_worker.process.pauses import PauseFollower
from headrace_worker.process.pool_child import PoolChild
from headrace_worker.process.pool_replacement import PoolReplacement
from headrace_worker.process.redis_client import ProcessClient
from headrace_worker.process.running_jobs import LATE_SECONDS as STARTED_LATE_SECONDS
from headrace_worker.process.running_jobs import StartedMarker
from headrace_worker.process.startup import (
    choose_queues,
    count_bulk_processes,
    describe_memory,
    exit_on_error,
    load_models,
    remove_ready_file,
    select_models,
    set_queues,
)
from headrace_worker.rollout.canary import CanaryJudge, CanaryLimits
from headrace_worker.settings import WorkerSettings
from headrace_worker.store.store import Store
from headrace_worker.telemetry import sentry
from headrace_worker.transport import ClaimingChannel, LeaseKeeper, make_keeper
from headrace_worker.transport.claims import Claim, ClaimLimits

if TYPE_CHECKING:
    from celery import Celery
    from celery.worker.consumer.consumer import Consumer

log = logging.getLogger("headrace.worker")


class WorkerService:
    """The models, leases and monitoring of one worker."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings, self._keys = settings, Keys(settings.key_prefix)
        self._client = ProcessClient(settings)
        self._redis_check = RedisCheck(settings)
        self._dead_letter_limits = DeadLetterLimits(
            max_count=settings.dead_letters_max, max_age_seconds=settings.dead_letters_ttl
        )
        self.registry = Registry(Store.from_settings(settings, cached=True), settings, prove=True, defer=True)
        self.monitoring = Monitoring(settings, self.registry)
        self.pool_replacement = PoolReplacement(self._pool_load_seconds)
        self._changes = Changes()
        self._lease_keeper: LeaseKeeper | None = None
        self._duties = KeeperDuties(self._keys, ttl=settings.result_ttl, models=self.registry.models)
        #: True until the pool processes have loaded what they must load themselves: nothing is claimed before.
        self._is_starting = False
        self._follow_ups = FollowUpService(
            settings,
            self._client,
            self.monitoring.health.watch_loop("follow-ups", late_after=FOLLOW_UPS_LATE_SECONDS),
            self._has_follow_ups,
        )
        self.pool_child = PoolChild(
            settings,
            self.registry,
            self._client,
            self.monitoring,
            dead_letter_limits=self._dead_letter_limits,
            follow_ups=self._follow_ups,
        )
        self._model_follower = self._make_follower(None)
        self._pauses = PauseFollower(
            self._client,
            self._keys,
            self.monitoring.health.watch_loop("pauses", late_after=PAUSES_LATE_SECONDS),
            self._changes,
        )
        self._started_marker = StartedMarker(
            self._client,
            self._keys,
            self.monitoring.health.watch_loop("started", late_after=STARTED_LATE_SECONDS),
        )
        self._stopping = threading.Lock()
        #: The pool of this worker, once it runs: autoscale changes the number of its processes.
        self._pool: Any = None

    def _make_follower(self, models: list[str] | None, queues: Iterable[str] | None = None) -> ModelFollower:
        """Make the follower for the models to serve, None for the whole store; `queues` as for ModelFollower."""
        settings = self._settings
        return ModelFollower(
            self.registry,
            ModelSync(
                self.registry,
                self._client,
                self._keys,
                models,
                changes=self._changes,
                columns=accepted_forms(),
            ),
            CanaryJudge(
                self._client,
                self._keys,
                CanaryLimits.from_settings(settings),
            ),
            self.pool_replacement,
            queues=queues,
            queues_of=lambda model: choose_queues(settings, model),
            loop=self.monitoring.health.watch_loop("models", late_after=LATE_SECONDS),
            sign_loop=self.monitoring.health.watch_loop("signs", late_after=SIGNS_LATE_SECONDS),
        )

    def choose_queues(self, app: Celery[Any], queues: Sequence[str] | None, excluded: Sequence[str]) -> None:
        """Set the queues from which Celery consumes, before it removes the excluded ones (its option `-X`).

        `queues` are those of its option `-Q`, None without it.
        """
        models = select_models(self._settings, queues)
        with exit_on_error():
            chosen = self.registry.store.models() if models is None else models
        names = [queue for model in chosen for queue in choose_queues(self._settings, model)]
        named = [queue for queue in queues or () if model_name(queue)]
        set_queues(app, named or names)
        initial_queues = {*names, *excluded} if models is None else None
        self._model_follower = self._make_follower(models, initial_queues)

    def load_models(self) -> None:
        """Check Redis, and load and prove the models before the pool forks. Exit if none can be served."""
        remove_ready_file(self._settings)
        health, model_sync = self.monitoring.health, self._model_follower.model_sync
        model_sync.on_model, self.registry.on_version = health.mark_model, health.mark_version
        self._check_redis()
        load_models(self._settings, self.registry, model_sync)
        health.mark_loaded()
        self._is_starting = bool(self.registry.deferred())

    def announce(self, consumer: Consumer) -> None:
        """Publish what the worker serves, and follow the aliases and the store.

        The worker is ready now, or once its pool processes have loaded what must be loaded after the fork.
        """
        self._pool = consumer.pool
        self._check_redis()  # if Redis was unreachable at the start
        if self.pool_replacement.forks:
            self._check_memory(consumer)
        else:
            self.registry.load_deferred()
        self._pauses.start()
        self._model_follower.start(consumer)
        self._started_marker.start(str(consumer.hostname))
        self._follow_ups.start()
        if self._is_starting:
            self.pool_replacement.when_complete(self._become_ready)
        else:
            self._become_ready()

    def _check_memory(self, consumer: Consumer) -> None:
        """Log if the pool processes do not fit into the container, or have no limit there."""
        container = read_memory_limit()
        if container is None:
            return
        is_warning, text = describe_memory(
            container=container,
            processes=max(consumer.pool.num_processes, consumer.controller.max_concurrency or 0),
            limit=self._settings.memory_limit,
            used=pool_process.count_memory(),
            copied=sum(deferred.manifest.size for deferred in self.registry.deferred()),
        )
        if text:
            log.log(logging.WARNING if is_warning else logging.INFO, "%s", text)

    def _become_ready(self) -> None:
        self._is_starting = False
        self.monitoring.mark_ready()
        if self._settings.ready_file:
            Path(self._settings.ready_file).touch()

    def _pool_load_seconds(self) -> float:
        """Return the seconds that a new pool process may load versions that were deferred."""
        return 2 * LOAD_SECONDS * len(self.registry.deferred())  # each is loaded twice

    def _check_redis(self) -> None:
        with exit_on_error():
            self._redis_check(self._client())

    def limits_for(self, queue: str) -> ClaimLimits:
        """Return the limits of a claim from a queue: as many jobs as its model takes in one batch."""
        model = model_name(queue)
        if model is None:
            return ClaimLimits(queue=queue)
        limits, route = self.registry.limits(model), self.registry.route(model)
        hard = limits.time_limit or self._settings.time_limit
        soft = limits.soft_time_limit
        if is_bulk_queue(queue):
            return ClaimLimits(
                queue=queue,
                time_limits=(hard, soft if soft and soft < hard else None),
                plan_time_limits=(self._settings.time_limit, None),
                route=route,
                claims=limits.max_claims if route is not None and not self._must_wait(model) else 0,
                is_full=self._is_full_of_bulk_jobs(),
            )
        return ClaimLimits(
            queue=queue,
            jobs=min(self._settings.claim_jobs, limits.max_batch_instances),
            bytes=limits.max_batch_bytes,
            wait=limits.max_batch_wait,
            time_limits=(hard, soft if soft and soft < hard else None),
            route=route,
            claims=limits.max_claims if route is not None and not self._must_wait(model) else 0,
        )

    def _is_full_of_bulk_jobs(self) -> bool:
        """Return whether this worker may claim no further bulk job: a pool process stays free for online jobs."""
        held = self._lease_keeper.count_bulk() if self._lease_keeper is not None else 0
        processes = int(getattr(self._pool, "num_processes", None) or 1)
        return held >= count_bulk_processes(self._settings, processes)

    def _must_wait(self, model: str) -> bool:
        """Return whether a model's jobs must wait: it is paused, or no pool process is ready."""
        return self._is_starting or self._pauses.is_paused(model)

    def give_up(self, claim: Claim) -> bool:
        """Give up the isolated job of a claim if no pool process can. Return whether the claim has ended so."""
        keeper = self._lease_keeper
        if keeper is None:
            return False
        worker, ttl = keeper.owner.partition("/")[0], self._settings.result_ttl
        try:
            return give_up_exhausted(claim, keeper.commands, self.registry.limits, worker=worker, ttl=ttl)
        except redis.RedisError as error:
            log.warning("cannot give up a job of %s, leaving it to the pool: %s", claim.lease.queue, error)
            return False

    def keeper_for(self, channel: ClaimingChannel) -> LeaseKeeper:
        """Return the keeper of this worker's leases: one for all connections. The first call makes it."""
        if self._lease_keeper is None:
            keeper, health = make_keeper(channel, self._dead_letter_limits), self.monitoring.health
            keeper.on_swept = sentry.check_in
            keeper.count_workers = lambda: self._model_follower.model_sync.workers
            keeper.on_sweep, keeper.on_changes = self._duties.run, self._changes.record
            keeper.on_request, keeper.on_reply = health.mark_request_sent, health.mark_reply_received
            loop = health.watch_loop("leases", late_after=keeper.late_seconds)
            keeper.outages = health.outages
            keeper.on_round_begun, keeper.on_round_ended = loop.begin_round, loop.end_round
            self._lease_keeper = keeper
        return self._lease_keeper

    def lease_keeper(self) -> LeaseKeeper | None:
        """Return the keeper of this worker's leases; None if it has none yet."""
        return self._lease_keeper

    def _has_follow_ups(self) -> bool:
        """Return whether this worker is to send what follows jobs of lost workers, as the keeper of the queues."""
        keeper = self._lease_keeper
        return keeper is None or (keeper.keeps_queues and self._duties.has_follow_ups)

    def cancel(self, jobs: Sequence[str]) -> None:
        """Cancel the jobs with these ids that have no outcome yet, those of plain Celery clients too."""
        with Client(settings=self._settings) as client:
            for job in jobs:
                with contextlib.suppress(HeadraceError):
                    client.job(job).cancel(unknown=True)

    def stop(self) -> None:
        """Return the claims that did not run to their queues, and delete what the worker published."""
        with self._stopping:  # the main thread may end while another thread is in here
            self._pauses.stop()
            self._started_marker.stop()
            self._model_follower.stop()
            self._follow_ups.stop()
            if self._lease_keeper is not None and (released := self._lease_keeper.close()):
                log.info("returned %d claims to their queues", released)
            with contextlib.suppress(redis.RedisError):
                self._model_follower.withdraw()
