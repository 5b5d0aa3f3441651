"""Follow the aliases and the store: the worker's main process loads what they name, and drops what nothing names.

    look ──> serve (load, verify, prove) ──> the pool is swapped ──> told in Redis: contracts, loaded, refused
     each second, in a thread: Celery's loop answers meanwhile

What changes is in memory before any job is sent to it, and what is bad never serves (`registry`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import redis

from headrace.catalog.aliases import (
    Aliases,
    decode_aliases,
    decode_history,
    find_former_version,
    read_aliases,
    read_history,
)
from headrace.catalog.published import publish_contract
from headrace.catalog.workers import STATUS_TTL_SECONDS, publish_status, withdraw_status
from headrace.connection.commands import Pipeline, execute
from headrace.errors import HeadraceError
from headrace.wire.keys import Keys
from headrace_worker.models.registry import Registry

log = logging.getLogger("headrace.models")

#: Seconds between two looks at the aliases and the store.
SYNC_SECONDS = 1.0
#: Seconds between two words to Redis of what is loaded: a few of them before a worker counts as silent.
_TELL_EVERY = STATUS_TTL_SECONDS / 5
#: Seconds a version stays in memory that nothing names any more: jobs that name it may still be waiting.
KEEP_SECONDS = 60.0


class ModelSync:
    """What one worker knows of the aliases of its models, and what it has told of them.

    `asked` are the models it serves, None for all of the store; `connect` gives the Redis connection.
    """

    def __init__(
        self,
        registry: Registry,
        connect: Callable[[], redis.Redis],
        keys: Keys,
        asked: Sequence[str] | None = None,
        *,
        keep: float = KEEP_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry, self._connect, self._keys, self._asked = registry, connect, keys, asked
        self._keep, self._clock = keep, clock
        self._aliases: dict[str, Aliases] = {}
        #: Versions in memory that nothing names, and since when.
        self._unnamed: dict[tuple[str, str], float] = {}
        self._said: dict[str, str] = {}
        self._published: set[tuple[str, str]] = set()
        self._told: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
        self._told_at = 0.0

    def sync(self) -> dict[str, HeadraceError]:
        """Read the aliases and load what they name; returns what went wrong, by model. Raises HeadraceError.

        Without Redis, the aliases are those last read.
        """
        wrong: dict[str, HeadraceError] = {}
        for model in self._models():
            try:
                self._registry.serve(self._aliases.get(model, Aliases(model)), partial(self._former, model))
                self._said.pop(model, None)
            except HeadraceError as error:
                wrong[model] = error
                if self._said.get(model) != str(error):  # once, not each second
                    self._said[model] = str(error)
                    log.error("model %s is not served: %s", model, error)  # noqa: TRY400  # the message says all
        self._drop()
        return wrong

    def _models(self) -> list[str]:
        # A model that was taken out of the store is served on while it is in memory.
        models = self._asked if self._asked is not None else {*self._stored(), *self._registry.models()}
        models = sorted(models)
        try:
            reads = Pipeline(tuple(read_aliases(self._keys, model).args for model in models))
            for model, reply in zip(models, execute(self._connect(), reads) if models else (), strict=True):
                if not isinstance(reply, Exception):
                    self._aliases[model] = decode_aliases(model, reply)
        except redis.RedisError as error:
            log.warning("could not read the aliases, goes on with those last read: %s", error)
        return models

    def _stored(self) -> list[str]:
        try:
            return self._registry.store.models()
        except (HeadraceError, OSError) as error:
            if not self._registry.models():
                raise
            log.warning("could not look for models: %s", error)
            return []

    def _former(self, model: str, alias: str) -> str | None:
        """Where an alias pointed before, as Redis has it."""
        try:
            moves = decode_history(execute(self._connect(), read_history(self._keys, model)))
        except redis.RedisError:
            return None
        return find_former_version(moves, alias)

    def _drop(self) -> None:
        now, unnamed = self._clock(), {}
        for model in self._registry.models():
            route = self._registry.route(model)
            named = (route.versions if route else set()) | self._aliases.get(model, Aliases(model)).versions
            for version in self._registry.loaded_versions(model):
                if version in named:
                    continue
                since = unnamed[model, version] = self._unnamed.get((model, version), now)
                if now - since > self._keep:
                    self._registry.drop(model, version)
                    del unnamed[model, version]
                    log.info("dropped %s@%s: nothing names it", model, version)
        self._unnamed = unnamed

    @property
    def aliases(self) -> Mapping[str, Aliases]:
        """The aliases of each model, as they were last read."""
        return self._aliases

    def loaded_versions(self) -> frozenset[tuple[str, str]]:
        """The models and versions in memory: when these change, the pool processes are to be forked anew."""
        registry = self._registry
        return frozenset(
            (model, version) for model in registry.models() for version in registry.loaded_versions(model)
        )

    def report(self, worker: str) -> None:
        """Publish the contracts that are new, and say what is loaded and refused. Raises redis.RedisError."""
        client, registry = self._connect(), self._registry
        for contract in registry.contracts():
            if (contract.model, contract.version) not in self._published:
                publish_contract(client, self._keys, contract)
                self._published.add((contract.model, contract.version))
                log.info("serving %s@%s", contract.model, contract.version)
        due = self._clock() - self._told_at >= _TELL_EVERY
        for model in {*registry.models(), *self._said}:
            news = (registry.loaded_versions(model), tuple(registry.refused(model)))
            if due or self._told.get(model) != news:
                execute(
                    client,
                    publish_status(
                        self._keys,
                        model,
                        worker,
                        news[0],
                        registry.refused(model),
                        runtimes=registry.runtimes(model),
                    ),
                )
                self._told[model] = news
        if due:
            self._told_at = self._clock()

    def withdraw(self, worker: str) -> None:
        """Take back what was said: the worker ends. Raises redis.RedisError."""
        for model in self._told:
            execute(self._connect(), withdraw_status(self._keys, model, worker))
        self._told.clear()
