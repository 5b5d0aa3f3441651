"""What a worker serves: the models it loads, the queues it takes from, the contracts it publishes.

Models are loaded and proven (digest, warm-up, example) in the main process before the pool forks, so that
the pool processes share their memory; only then is the worker ready. Unless it was given queues or models,
a worker serves all models of the store, also one added later.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import redis
from kombu import Queue
from threadpoolctl import threadpool_limits

from headrace import broker, contracts
from headrace.client import Client
from headrace.errors import HeadraceError, ModelError, SettingError
from headrace.queues import Keys, model_of, queue_name
from headrace_worker import pool_process
from headrace_worker.claim import ClaimRunner
from headrace_worker.doctor import RedisCheck
from headrace_worker.models.registry import Registry
from headrace_worker.models.store import Store
from headrace_worker.settings import WorkerSettings
from headrace_worker.telemetry import sentry
from headrace_worker.telemetry.events import Events
from headrace_worker.transport import Claiming, Keeper, make_keeper, silent_after
from headrace_worker.transport.scripts import Ask, Bounds, Claim, LeaseKeys, Leases

if TYPE_CHECKING:
    from celery import Celery
    from celery.worker.consumer.consumer import Consumer

log = logging.getLogger("headrace.worker")

#: Seconds between two looks for models and versions added to the store.
_LOOK_EVERY = 1.0


class Serving:
    """The models, queues and Redis connection of one worker."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self.registry = Registry(Store.of(settings, cached=True), settings)
        self._keys = Keys(settings.key_prefix)
        self._client: redis.Redis | None = None
        self._client_pid = 0
        #: The models asked for; None is all of the store, whenever added.
        self._asked: list[str] | None = [name for name in settings.serve.split(",") if name] or None
        self._published: dict[str, str] = {}
        self._main_pid = os.getpid()
        self._check = RedisCheck(settings)
        self._bounds = Bounds(letters=settings.dead_letters_max, seconds=settings.dead_letters_ttl)
        self._keeper: Keeper | None = None
        self._runner: ClaimRunner | None = None
        self._stopping = threading.Lock()

    @property
    def client(self) -> redis.Redis:
        """Connections to Redis, for the process that asks: a pool process has its own."""
        if self._client is None or self._client_pid != os.getpid():
            answers = min(self.settings.command_timeout, silent_after(self.settings.lease))
            settings = msgspec.structs.replace(self.settings, command_timeout=answers)
            self._client, self._client_pid = broker.connect(settings), os.getpid()
        return self._client

    def runner(self, app: Celery[Any], hostname: str) -> ClaimRunner:
        """What runs claims in this pool process."""
        if self._runner is None:
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
                Leases(client, LeaseKeys(keys), self._bounds),
                self.registry,
                worker=hostname,
                result_key=keys.result,
                ttl=self.settings.result_ttl,
                events=events if self.settings.events else None,
                on_error=sentry.report,
            )
        return self._runner

    def ask_of(self, queue: str) -> Ask:
        """What a claim may take of a queue: as much as its model takes in one batch."""
        model = model_of(queue)
        if model is None:
            return Ask(queue=queue)
        limits = self.registry.limits(model)
        hard = limits.time_limit or self.settings.time_limit
        soft = limits.soft_time_limit
        return Ask(
            queue=queue,
            jobs=min(self.settings.claim_jobs, limits.max_batch_rows),
            bytes=limits.max_batch_bytes,
            wait=limits.max_batch_wait,
            time_limits=(hard, soft if soft and soft < hard else None),
        )

    def keeper_for(self, channel: Claiming) -> Keeper:
        """The keeper of this worker's leases: one, whatever becomes of connections."""
        if self._keeper is None:
            self._keeper = make_keeper(channel, self._bounds)
        return self._keeper

    def keeper(self) -> Keeper | None:
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
            if self._keeper is not None and (released := self._keeper.close()):
                log.info("put %d claims back", released)

    def choose_queues(self, app: Celery[Any], queues: list[str] | None) -> None:
        """Set the queues Celery takes from: those given to it (`-Q`), else those of the models served."""
        if queues is not None:
            self._asked = [model for queue in queues if (model := model_of(queue))]
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
        threadpool_limits(1)
        failures = self.registry.preload(self._asked)
        for model, error in failures.items():
            log.error("model %s is not served: %s", model, error)
        if failures and (self._asked or not self.registry.contracts()):
            raise SystemExit("headrace: no worker without its models: " + "; ".join(map(str, failures.values())))
        if not self.registry.contracts():
            log.warning("no models in %s yet; `headrace models add` adds one", self.settings.models)
        # What is loaded stays: the collector need not look through it, nor touch the memory that the pool shares.
        gc.collect()
        gc.freeze()
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
        """Make a pool process ready: pools of threads do not survive a fork, nor do their limits."""
        threadpool_limits(1)
        pool_process.isolate(self.settings.memory_limit)

    def run(self, app: Celery[Any], hostname: str, claim: Claim) -> None:
        """Run a claim, in a pool process if there are any."""
        runner = self.runner(app, hostname)
        with contextlib.nullcontext() if os.getpid() == self._main_pid else pool_process.running():
            runner.run(claim)

    def announce(self, consumer: Consumer) -> None:
        """Publish the contracts of what is served, and go on looking for what is added."""
        self._check_redis()  # again, where Redis was away before
        self._publish()
        if self.settings.ready_file:
            Path(self.settings.ready_file).touch()
        if self._asked is None:
            threading.Thread(
                target=self._look, args=(consumer, threading.Event()), name="headrace-models", daemon=True
            ).start()

    def _publish(self) -> list[str]:
        """Publish contracts that are new; returns their models."""
        new = []
        for contract in self.registry.contracts():
            if self._published.get(contract.model) != contract.version:
                contracts.publish(self.client, self._keys, contract)
                self._published[contract.model] = contract.version
                new.append(contract.model)
                log.info("serving %s@%s", contract.model, contract.version)
        return new

    def _look(self, consumer: Consumer, stop: threading.Event) -> None:
        # A thread: loading takes seconds, and Celery's loop must answer meanwhile.
        refused: set[tuple[str, str]] = set()
        while not stop.wait(_LOOK_EVERY):
            try:
                self._adopt(consumer, refused)
            except (HeadraceError, OSError, redis.RedisError) as error:
                log.warning("could not look for models: %s", error)

    def _adopt(self, consumer: Consumer, refused: set[tuple[str, str]]) -> None:
        for model in self.registry.store.models():
            latest = self.registry.store.latest(model)
            if (model, latest) in refused or self._published.get(model) == latest:
                continue
            try:
                served = self.registry.get(model)
            except ModelError as error:
                log.error("model %s is not served: %s", model, error)  # noqa: TRY400  # the message says all
                refused.add((model, latest))
                continue
            if served.manifest.version != latest and self.registry.is_refused(model, latest):
                refused.add((model, latest))
        for model in self._publish():
            queue = queue_name(model)
            if queue not in consumer.app.amqp.queues.consume_from:
                consumer.call_soon(consumer.add_task_queue, queue)


def _queue(model: str) -> Queue:
    name = queue_name(model)
    return Queue(name, routing_key=name)
