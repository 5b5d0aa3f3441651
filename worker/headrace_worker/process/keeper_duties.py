"""Duties of the keeper of the queues, for all workers of these queues, about every second.

Each of it is looked for with one command, so that it costs Redis next to nothing while there is nothing to do.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import redis

from headrace.catalog.aliases import read_aliases
from headrace.catalog.changes import count_change_with
from headrace.catalog.workers import renew_command
from headrace.clock import utc_now
from headrace.connection.commands import Pipeline, execute, run
from headrace.inspection.oldest import find_waiting, report_command, report_none_waiting
from headrace.results.cancellation import carry_out_requests
from headrace.wire.keys import Keys
from headrace.wire.queues import model_name, queue_names

log = logging.getLogger("headrace.worker")

#: Seconds between two comparisons of aliases and pauses, for changes that nobody has counted.
_COMPARE_SECONDS = 5.0
#: Seconds between two reports that no job of a model waits.
_NONE_WAITING_SECONDS = 2.0
#: Seconds between two renewals of the workers' statuses.
_RENEW_SECONDS = 5.0
_RENEWALS_PER_EXTENSION = 4


class KeeperDuties:
    """The duties of one worker while it is the keeper; `ttl` is for outcomes, in seconds.

    `models` returns the models that the worker has in memory.
    """

    def __init__(
        self,
        keys: Keys,
        *,
        ttl: int,
        models: Callable[[], Iterable[str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys, self._ttl, self._models, self._clock = keys, ttl, models, clock
        #: True if something that follows jobs is not sent yet.
        self.has_follow_ups = True
        #: True if no job waits, and nobody asked for a cancellation.
        self._is_idle = False
        self._catalog: list[Any] | None = None
        self._compare_at = self._renew_at = self._report_at = 0.0
        self._renewals = 0
        #: The last error of each duty that was logged.
        self._logged: dict[str, str] = {}

    def run(self, client: redis.Redis, queues: Sequence[str]) -> None:
        """Do what is due. A duty that Redis refuses is logged, and stops no other."""
        models = sorted({model for queue in queues if (model := model_name(queue))})
        for name, duty in (
            ("look for jobs and requests", self._look),
            ("carry out cancellations", self._carry_out_cancellations),
            ("report the oldest jobs", self._report_oldest),
            ("compare aliases and pauses", self._compare_catalog),
            ("renew the statuses of workers", self._renew_statuses),
        ):
            try:
                duty(client, models)
                self._logged.pop(name, None)
            except redis.ResponseError as error:
                if self._logged.get(name) != str(error):
                    self._logged[name] = str(error)
                    log.warning("could not %s; retrying: %s", name, error)

    def _look(self, client: redis.Redis, models: Sequence[str]) -> None:
        """Find out whether there is anything to do; if Redis refuses to tell, there may be."""
        self._is_idle, self.has_follow_ups = False, True
        queues = [queue for model in models for queue in queue_names(model)]
        lists = [name for queue in queues for name in self._keys.sources(queue)]
        self._is_idle = not client.exists(self._keys.cancel_requests, self._keys.follow_ups, *lists)
        self.has_follow_ups = not self._is_idle and bool(client.exists(self._keys.follow_ups))

    def _carry_out_cancellations(self, client: redis.Redis, _models: Sequence[str]) -> None:
        if self._is_idle:
            return
        requests = carry_out_requests(self._keys, ttl=self._ttl, now=utc_now())
        if jobs := run(partial(execute, client), requests):
            log.info("cancelled %d jobs as requested", jobs)

    def _report_oldest(self, client: redis.Redis, models: Sequence[str]) -> None:
        waiting = [] if self._is_idle else run(partial(execute, client), find_waiting(self._keys, models))
        if waiting:
            execute(client, report_command(self._keys, waiting))
        others = [model for model in models if model not in waiting]
        if others and self._clock() >= self._report_at:
            self._report_at = self._clock() + _NONE_WAITING_SECONDS
            run(partial(execute, client), report_none_waiting(self._keys, others))

    def _compare_catalog(self, client: redis.Redis, models: Sequence[str]) -> None:
        """Count a change of aliases or pauses that whoever made it has not counted."""
        if self._clock() < self._compare_at:
            return
        self._compare_at = self._clock() + _COMPARE_SECONDS
        reads = [read_aliases(self._keys, model).args for model in sorted({*models, *self._models()})]
        replies = execute(client, Pipeline((*reads, ("HGETALL", self._keys.paused))))
        catalog = [str(reply) if isinstance(reply, Exception) else reply for reply in replies]
        if catalog != self._catalog:
            count_change_with(client, self._keys)
            self._catalog = catalog

    def _renew_statuses(self, client: redis.Redis, models: Sequence[str]) -> None:
        if self._clock() >= self._renew_at:
            self._renew_at = self._clock() + _RENEW_SECONDS
            self._renewals += 1
            extend = self._renewals % _RENEWALS_PER_EXTENSION == 1
            execute(client, renew_command(self._keys, sorted({*models, *self._models()}), extend=extend))
