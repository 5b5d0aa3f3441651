"""The threads of the main process that follow the aliases and the store, and say that the worker runs."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import redis
from threadpoolctl import threadpool_limits

from headrace.errors import HeadraceError
from headrace_worker.models.registry import Registry
from headrace_worker.models.sync import SYNC_SECONDS, ModelSync
from headrace_worker.process import fork_memory
from headrace_worker.process.pool_replacement import PoolReplacement
from headrace_worker.rollout.canary import CanaryJudge
from headrace_worker.telemetry.loops import LoopHealth

if TYPE_CHECKING:
    from celery.worker.consumer.consumer import Consumer

log = logging.getLogger("headrace.worker")

#: Seconds between two steps that each stop the event loop for milliseconds, so that it can serve waiting jobs.
_PAUSE_SECONDS = 0.05
#: Seconds to wait for the replacement of the pool; a process that runs a long claim is replaced later.
_REPLACEMENT_TIMEOUT = 10.0
#: Seconds after which a round is late: it may load and prove large versions.
LATE_SECONDS = 900.0
#: Seconds after which signs of life are late.
SIGNS_LATE_SECONDS = 60.0
#: Seconds that this thread may hold the interpreter while the event loop waits; Python's default is 0.005.
_SWITCH_INTERVAL = 0.0005


class ModelFollower:
    """Loads what the aliases and the store name, replaces the pool, and publishes what the worker serves.

    A thread, because loading takes seconds and Celery's event loop must go on. `queues` are those of a worker of
    the whole store at its start, excluded ones too: it begins to consume from the queue of each model that is
    added later, once. None if the queues are fixed. `queues_of` returns the queues of a model.
    """

    def __init__(
        self,
        registry: Registry,
        model_sync: ModelSync,
        canary_judge: CanaryJudge,
        pool_replacement: PoolReplacement,
        *,
        queues: Iterable[str] | None,
        queues_of: Callable[[str], Iterable[str]],
        loop: LoopHealth,
        sign_loop: LoopHealth,
    ) -> None:
        self._registry, self.model_sync = registry, model_sync
        self._canary_judge, self._pool_replacement = canary_judge, pool_replacement
        #: The queues that are not added: a person may have taken them out (`celery control cancel_consumer`).
        self._offered_queues = None if queues is None else set(queues)
        self._queues_of = queues_of
        self._hostname = ""
        #: The pool of this worker, once it runs: autoscale changes the number of its processes.
        self._pool: Any = None
        #: The models and versions that were in memory when the pool was forked.
        self._forked_with: frozenset[tuple[str, str]] = frozenset()
        self._stop = threading.Event()
        self._loop, self._sign_loop = loop, sign_loop

    def start(self, consumer: Consumer) -> None:
        """Publish what the worker serves, and follow the aliases and the store from now on."""
        self._hostname, self._pool = str(consumer.hostname), consumer.pool
        self.model_sync.sync()
        self._forked_with = self.model_sync.loaded_versions()
        try:
            self._report()
        except redis.RedisError as error:
            log.warning(
                "cannot publish what the worker serves; the next attempt is in %g s: %s", SYNC_SECONDS, error
            )
        threading.Thread(target=self._run, args=(consumer,), name="headrace-models", daemon=True).start()
        threading.Thread(target=self._give_signs, name="headrace-signs", daemon=True).start()

    def stop(self) -> None:
        """Stop following."""
        self._stop.set()

    def withdraw(self) -> None:
        """Delete what was published: the worker ends. Raises redis.RedisError."""
        self.model_sync.withdraw(self._hostname)

    def _run(self, consumer: Consumer) -> None:
        sys.setswitchinterval(_SWITCH_INTERVAL)
        self._loop.run_rounds(lambda: self._follow(consumer), self._stop, SYNC_SECONDS)

    def _give_signs(self) -> None:
        """Give signs of life while the other thread loads a version, which may take minutes."""
        sign = partial(self.model_sync.give_sign_of_life, self._hostname)
        self._sign_loop.run_rounds(sign, self._stop, SYNC_SECONDS)

    def _follow(self, consumer: Consumer) -> None:
        """Follow the store, and publish what the worker serves, whatever became of the store."""
        try:
            self.model_sync.sync()
            self._replace_pool_if_changed()
            if self._offered_queues is not None:
                self._add_queues(consumer, self._offered_queues)
        except (HeadraceError, OSError) as error:
            log.warning("cannot read the model store; the next attempt is in %g s: %s", SYNC_SECONDS, error)
        finally:
            self._report()

    def _replace_pool_if_changed(self) -> None:
        loaded = self.model_sync.loaded_versions()
        if loaded == self._forked_with:
            return
        self._forked_with = loaded
        threadpool_limits(1)  # a new version may have imported further libraries; see `startup.load_models`
        fork_memory.freeze_heap()
        self._stop.wait(_PAUSE_SECONDS)
        self._pool_replacement.begin()
        self._pool_replacement.wait(_REPLACEMENT_TIMEOUT)

    def _add_queues(self, consumer: Consumer, offered_queues: set[str]) -> None:
        for queue in (queue for model in self._registry.models() for queue in self._queues_of(model)):
            if queue not in offered_queues:
                offered_queues.add(queue)
                consumer.call_soon(consumer.add_task_queue, queue)

    def _report(self) -> None:
        self.model_sync.report(self._hostname, int(self._pool.num_processes or 0))
        self._canary_judge.check(self.model_sync.aliases)
