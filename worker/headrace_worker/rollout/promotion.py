"""Promotion and rollback: an alias of a model is moved to another version, in one step after all checks.

    verify the store ──> compare contracts ──> alias `arriving`: workers load the version ──> move the alias

No job is affected before the last step, so a faulty version is found before it serves.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import msgspec
import redis

from headrace.catalog.aliases import (
    ARRIVING,
    CANARY,
    PRODUCTION,
    Alias,
    AliasChange,
    Aliases,
    check_alias,
    decode_history,
    is_version,
    read_history,
    set_arriving,
)
from headrace.catalog.changes import count_change_with
from headrace.catalog.contract_diff import Change, compare_contracts
from headrace.connection.commands import Operation, execute, run
from headrace.errors import HeadraceError, InvalidInput
from headrace.wire.keys import Keys
from headrace_worker.rollout import version_stats
from headrace_worker.rollout.alias_moves import (
    RolloutStatus,
    check_changes,
    find_rollback,
    finish_promotion,
    load_aliases,
    move,
    read_routed_aliases,
    read_status,
)
from headrace_worker.rollout.version_stats import VersionStats
from headrace_worker.store.store import Store

T = TypeVar("T")

#: Seconds between two reads of the workers' status.
POLL_SECONDS = 0.2
#: The most seconds to wait for workers to route jobs by an alias that was moved; they look every second.
_ROUTED_SECONDS = 5.0


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """The result of moving an alias."""

    model: str
    alias: str
    #: The versions the alias points to now and pointed to before; None is none.
    version: str | None
    former: str | None
    #: The share of the jobs a canary takes, above 0 and up to 1; None for other aliases.
    share: float | None = None
    #: The changes for producers, compared with the version that served them before.
    changes: tuple[Change, ...] = ()
    #: The workers that had the version in memory when the alias was moved.
    workers: tuple[str, ...] = ()


class Promoter:
    """The operations that move aliases. `by` is the author for the history; `max_bytes` bounds a model's size."""

    def __init__(
        self,
        client: redis.Redis,
        keys: Keys,
        store: Store,
        *,
        by: str,
        max_bytes: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client, self._keys, self._store, self._by = client, keys, store, by
        self._max_bytes = max_bytes
        self._clock, self._sleep = clock, sleep

    def aliases(self, model: str) -> Aliases:
        """Return the aliases of a model."""
        return self._run(load_aliases(self._keys, model))

    def check_model_exists(self, model: str) -> None:
        """Raise UnknownModel if the store does not have the model."""
        self._store.latest(model)

    def history(self, model: str) -> list[AliasChange]:
        """Return the changes of a model's aliases, the newest first."""
        return decode_history(model, execute(self._client, read_history(self._keys, model)))

    def status(self, model: str, version: str) -> RolloutStatus:
        """Return the state of a version at the workers now."""
        return self._run(read_status(self._keys, model, version))

    def compare_versions(self, model: str) -> list[tuple[str, str, VersionStats]]:
        """Return alias, version and statistics of production, canary and shadow, as far as the aliases exist."""
        return self._run(version_stats.read_tried(self._keys, model, self.aliases(model).by_name))

    def contract_changes(self, model: str, version: str) -> tuple[Change, ...]:
        """Return the changes for producers between the version that serves now and this one, and verify its files.

        Raises UnknownModel, or ModelError if the version must not serve.
        """
        self._store.verify(model, version, max_bytes=self._max_bytes)
        production = self.aliases(model).by_name.get(PRODUCTION)
        serving = production.version if production else self._store.latest(model)
        if serving == version or serving not in self._store.versions(model):
            return ()
        return compare_contracts(
            self._store.read_manifest(model, serving).contract, self._store.read_manifest(model, version).contract
        )

    def promote(
        self,
        model: str,
        version: str,
        *,
        alias: str = PRODUCTION,
        share: float | None = None,
        reason: str = "",
        force: bool = False,
        wait: float = 60.0,
        on_status: Callable[[RolloutStatus], None] = lambda _: None,
    ) -> Promotion:
        """Point an alias to a version, once every worker that serves the model has the version in memory.

        `share` is the share of the jobs a canary takes. `force` promotes a version that breaks producers. `wait`
        is the seconds workers may take to load it, 0 to move the alias at once; `on_status` is called with their
        state meanwhile. A canary that is promoted to production stops being the canary. At the end, the workers
        route jobs by the alias, except those that take longer than some seconds.

        Raises ModelError if a worker refuses the version, and HeadraceError if a worker does not load it in time
        or the alias was changed meanwhile; then nothing has changed.
        """
        _check_alias(alias, share)
        _check_version(version)
        changes = self.contract_changes(model, version)
        advice = "Use --force if the producers are ready for it"
        check_changes(model, version, changes, force=force, advice=advice)
        ready: tuple[str, ...] = ()
        by_name = self.aliases(model).by_name
        before, after = by_name.get(alias), Alias(version=version, share=share)
        try:
            if wait:
                self._set_arriving(model, version)
                ready = self._wait_for_workers(model, version, wait, on_status)
            self._run(move(self._keys, model, alias, before, after, by=self._by, reason=reason))
        finally:
            self._set_arriving(model, None)
        self._run(finish_promotion(self._keys, model, alias, version, by_name, by=self._by))
        if wait:
            self._wait_until_routed(model, alias, after)
        return Promotion(
            model=model,
            alias=alias,
            version=version,
            former=before.version if before else None,
            share=share,
            changes=changes,
            workers=ready,
        )

    def rollback(self, model: str, *, alias: str = PRODUCTION, reason: str = "") -> Promotion:
        """Point an alias to the version it pointed to before; remove a canary or a shadow. Waits for no worker.

        Raises HeadraceError if there is no former version.
        """
        check_alias(alias)
        by_name = self.aliases(model).by_name
        former = self._run(find_rollback(self._keys, model, alias, by_name))
        if former is not None:
            self._store.verify(model, former, max_bytes=self._max_bytes)
        before, after = by_name[alias], None if former is None else Alias(version=former)
        self._run(move(self._keys, model, alias, before, after, by=self._by, reason=reason, rollback=True))
        return Promotion(model=model, alias=alias, version=former, former=before.version)

    def _run(self, operation: Operation[T]) -> T:
        return run(partial(execute, self._client), operation)

    def _set_arriving(self, model: str, version: str | None) -> None:
        execute(self._client, set_arriving(self._keys, model, version))
        count_change_with(self._client, self._keys)

    def _wait_for_workers(
        self, model: str, version: str, seconds: float, on_status: Callable[[RolloutStatus], None]
    ) -> tuple[str, ...]:
        """Wait until every worker that serves the model has the version in memory, and return their names."""
        end = self._clock() + seconds
        while True:
            status = self.status(model, version)
            on_status(status)
            status.check_refusals(model, version)
            if not status.pending:
                return status.ready
            if self._clock() >= end:
                raise HeadraceError(
                    f"{', '.join(status.pending)} had not loaded {model}@{version} after {seconds:g} s; nothing "
                    "was changed. Look at the logs of these workers, or promote with --no-wait"
                )
            self._sleep(POLL_SECONDS)

    def _wait_until_routed(self, model: str, alias: str, expected: Alias) -> None:
        """Wait until every worker routes jobs by this alias, if it says so, for some seconds at most."""
        end = self._clock() + _ROUTED_SECONDS
        while self._clock() < end:
            routed = self._run(read_routed_aliases(self._keys, model))
            if all(aliases.get(alias) == expected for aliases in routed):
                return
            self._sleep(POLL_SECONDS)


def _check_alias(alias: str, share: float | None) -> None:
    """Raise InvalidInput if the alias cannot be promoted, or does not go with this share."""
    check_alias(alias)
    if alias == ARRIVING:
        raise InvalidInput(f"{alias} is reserved for a version that workers are loading; use another alias")
    if (alias == CANARY) != (share is not None):
        raise InvalidInput("a canary needs a share of the jobs, and no other alias has one: --canary 10%")
    if share is not None and not 0 < share <= 1:
        raise InvalidInput(f"a canary takes more than 0% and at most 100% of the jobs, not {share:.4%}")


def _check_version(version: str) -> None:
    """Raise InvalidInput if this is not the number of a version."""
    if not is_version(version):
        raise InvalidInput(f"a version is a number, as `headrace models list` shows it; got {version[:40]!r}")
