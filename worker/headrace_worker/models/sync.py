"""Keep the main process's models in line with the aliases and the store: load what they name, drop the rest.

    sync ──> serve (load, verify, run the example) ──> the pool is replaced ──> report to Redis
     each second, in a thread, so that Celery's loop is not blocked

A version is in memory before any job is routed to it, and a version that must not serve never gets a job
(`registry`).
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import redis

from headrace.catalog.aliases import (
    ARRIVING,
    Alias,
    Aliases,
    decode_aliases,
    decode_history,
    find_former_version,
    read_aliases,
    read_history,
)
from headrace.catalog.published import publish_contract
from headrace.catalog.workers import (
    STATUS_TTL_SECONDS,
    forget_worker,
    publish_status,
    sign_of_life_command,
    withdraw_status,
)
from headrace.connection.commands import Pipeline, execute
from headrace.connection.errors import is_wrong_type
from headrace.errors import HeadraceError, ModelError
from headrace.wire.keys import Keys
from headrace.wire.stored import report_damaged
from headrace_worker.models.changes import ChangeReader, Changes
from headrace_worker.models.registry import Registry

log = logging.getLogger("headrace.models")

#: Seconds between two reads of the aliases and the store.
SYNC_SECONDS = 1.0
#: Seconds between two signs of life. One may be lost before a worker's statuses expire.
_SIGN_SECONDS = STATUS_TTL_SECONDS / 3
#: Seconds after which all statuses are published again, whatever Redis has of them.
_REPORT_SECONDS = 600.0
#: Seconds that a version stays in memory after the last alias stopped naming it: waiting jobs may still name it.
KEEP_SECONDS = 60.0


class ModelSync:
    """The aliases of one worker's models as last read, and what the worker has reported about its models.

    `models` are the models it serves, None for all of the store. `connect` returns the Redis connection. `keep` is
    how many seconds a version stays in memory that no alias names any more. `changes` tells when aliases are read
    again; without it, each time. `columns` are the forms of instances in columns that the worker takes.
    """

    def __init__(
        self,
        registry: Registry,
        connect: Callable[[], redis.Redis],
        keys: Keys,
        models: Sequence[str] | None = None,
        *,
        changes: Changes | None = None,
        columns: Sequence[str] = (),
        keep: float = KEEP_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry, self._connect, self._keys, self._models = registry, connect, keys, models
        self._columns, self._keep, self._clock = columns, keep, clock
        #: Called before a model is loaded, with its name, its number among the models to load, and their count.
        self.on_model: Callable[[str, int, int], None] = lambda _model, _number, _count: None
        self._changes = ChangeReader(changes or Changes())
        #: The number of workers of the installation, as of the last sign of life.
        self.workers = 1
        self._aliases: dict[str, Aliases] = {}
        #: True if the aliases could not be read the last time.
        self._is_cut_off = False
        #: The versions in memory that no alias names, and since when.
        self._unnamed: dict[tuple[str, str], float] = {}
        #: The error that was last logged for each model that is not served.
        self._logged_errors: dict[str, str] = {}
        self._published: set[tuple[str, str]] = set()
        #: The versions loaded and refused of each model, and the aliases it is routed by, as last reported.
        self._reported: dict[str, tuple[tuple[str, ...], tuple[str, ...], dict[str, Alias]]] = {}
        self._reported_at = self._signed_at = -_REPORT_SECONDS
        #: True until everything is reported: Redis did not know this worker, or its statuses may have expired.
        self._is_unknown = True
        self._is_withdrawn = False
        #: Held while a sign of life is given: two threads give it.
        self._signing = threading.Lock()

    def sync(self) -> dict[str, HeadraceError]:
        """Read the aliases, load the versions they name, and return the errors by model. Raises HeadraceError.

        If Redis does not answer, the aliases that were last read are used.
        """
        errors: dict[str, HeadraceError] = {}
        models = self._read_aliases()
        for number, model in enumerate(models, 1):
            self.on_model(model, number, len(models))
            try:
                aliases = self._aliases.get(model, Aliases(model))
                self._registry.serve(aliases, partial(self._read_former_version, model))
                self._logged_errors.pop(model, None)
            except HeadraceError as error:
                errors[model] = error
                if self._logged_errors.get(model) != str(error):  # logged once, not each second
                    self._logged_errors[model] = str(error)
                    log.error("model %s is not served: %s", model, error)  # noqa: TRY400  # the message says all
            except redis.RedisError:
                raise
            except Exception as error:  # one model must not stop the others
                errors[model] = ModelError(f"{model} cannot be served: {type(error).__name__}: {error}")
                if self._logged_errors.get(model) != str(errors[model]):
                    self._logged_errors[model] = str(errors[model])
                    log.exception("model %s is not served", model)
        self._drop_unnamed()
        return errors

    def _read_aliases(self) -> list[str]:
        """Read the aliases of all models that this worker serves, and return the models, sorted."""
        # A model that was removed from the store is served as long as it is in memory.
        stored = {
            *(self._models if self._models is not None else (*self._stored_models(), *self._registry.models()))
        }
        models = sorted(stored)
        if not self._changes.must_read() and self._aliases.keys() >= stored:
            return models
        try:
            reads = Pipeline(tuple(read_aliases(self._keys, model).args for model in models))
            for model, reply in zip(models, execute(self._connect(), reads) if models else (), strict=True):
                if isinstance(reply, redis.RedisError) and not is_wrong_type(reply):
                    raise reply
                if isinstance(reply, Exception):  # the aliases last read stay in force
                    report_damaged(f"the aliases of {model}", reply)
                else:
                    self._aliases[model] = decode_aliases(model, reply)
            self._changes.record_read()
        except redis.RedisError as error:
            if not self._is_cut_off:  # once, not every second
                log.warning("the aliases cannot be read from Redis; the last ones read stay in force: %s", error)
            self._is_cut_off = True
        else:
            self._is_cut_off = False
        return models

    def _stored_models(self) -> list[str]:
        try:
            return self._registry.store.models()
        except (HeadraceError, OSError) as error:
            if not self._registry.models():
                raise
            log.warning("the model store cannot be listed; the models in memory continue to serve: %s", error)
            return []

    def _read_former_version(self, model: str, alias: str) -> str | None:
        """Return the version that an alias named before, from its history in Redis; None if unknown."""
        try:
            moves = decode_history(model, execute(self._connect(), read_history(self._keys, model)))
        except redis.RedisError:
            return None
        return find_former_version(moves, alias)

    def _drop_unnamed(self) -> None:
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
                    log.info("dropped %s@%s from memory: no alias names it", model, version)
        self._unnamed = unnamed

    @property
    def aliases(self) -> Mapping[str, Aliases]:
        """The aliases of each model, as last read."""
        return self._aliases

    def loaded_versions(self) -> frozenset[tuple[str, str]]:
        """Return the models and versions in memory. When they change, the pool processes must be replaced."""
        registry = self._registry
        return frozenset(
            (model, version) for model in registry.models() for version in registry.loaded_versions(model)
        )

    def report(self, worker: str, processes: int = 0) -> None:
        """Publish new contracts, and report versions and aliases of a model if they changed or a report is due.

        `processes` is the number of pool processes of this worker. Raises redis.RedisError.
        """
        client, registry = self._connect(), self._registry
        for contract in registry.contracts():
            if (contract.model, contract.version) not in self._published:
                with _skipping_damaged(f"the contract of {contract.model}"):
                    publish_contract(client, self._keys, contract)
                    self._published.add((contract.model, contract.version))
                    log.info("serving %s@%s", contract.model, contract.version)
        self.give_sign_of_life(worker)
        with self._signing:
            is_unknown, self._is_unknown = self._is_unknown, False
        try:
            self._report_models(client, worker, processes, is_due=is_unknown or self._is_report_due())
        except redis.RedisError:
            with self._signing:
                self._is_unknown |= is_unknown
            raise

    def _report_models(self, client: redis.Redis, worker: str, processes: int, *, is_due: bool) -> None:
        registry = self._registry
        for model in {*registry.models(), *self._logged_errors}:
            versions, refused = registry.loaded_versions(model), registry.refused(model)
            aliases = self._routed_aliases(model)
            if is_due or self._reported.get(model) != (versions, tuple(refused), aliases):
                runtimes = registry.runtimes(model)
                status = publish_status(
                    self._keys,
                    model,
                    worker,
                    versions,
                    refused,
                    runtimes=runtimes,
                    processes=processes,
                    columns=self._columns,
                    aliases=aliases,
                )
                with _skipping_damaged(f"the status of workers of {model}"):
                    execute(client, status)
                    self._reported[model] = versions, tuple(refused), aliases
        if is_due:
            self._reported_at = self._clock()

    def _is_report_due(self) -> bool:
        return self._clock() - self._reported_at >= _REPORT_SECONDS

    def _routed_aliases(self, model: str) -> dict[str, Alias]:
        """Return the aliases by which jobs of a model are routed."""
        route = self._registry.route(model)
        return {name: alias for name, alias in route.aliases.items() if name != ARRIVING} if route else {}

    def give_sign_of_life(self, worker: str) -> None:
        """Say that the worker runs, if it is time to. Raises redis.RedisError.

        Any thread may call this, and one does while another loads a version for minutes: the statuses of a worker
        that gives no sign expire, and a promotion would not wait for it.
        """
        with self._signing:
            passed = self._clock() - self._signed_at
            if passed < _SIGN_SECONDS or self._is_withdrawn:
                return
            is_new: object = True
            with _skipping_damaged("the list of workers"):
                is_new, self.workers = execute(self._connect(), sign_of_life_command(self._keys, worker))
                self._signed_at = self._clock()
            self._is_unknown |= bool(is_new) or passed > STATUS_TTL_SECONDS / 2

    def withdraw(self, worker: str) -> None:
        """Remove the worker's reports from Redis when it shuts down. Raises redis.RedisError."""
        with self._signing:
            self._is_withdrawn = True
        with _skipping_damaged("the list of workers"):
            execute(self._connect(), forget_worker(self._keys, worker))
        for model in self._reported:
            with _skipping_damaged(f"the status of workers of {model}"):
                execute(self._connect(), withdraw_status(self._keys, model, worker))
        self._reported.clear()


@contextlib.contextmanager
def _skipping_damaged(name: str) -> Iterator[None]:
    """Skip, in the block, what a key of another type refuses: it must not stop the other models."""
    try:
        yield
    except redis.ResponseError as error:
        if not is_wrong_type(error):
            raise
        report_damaged(name, error)
