"""Let an alias of a model point to another version, and back: checked, loaded by workers, then moved in one step.

    check the store ──> compare contracts ──> `arriving`: workers load it ──> move

Nothing has changed for any job until the last step, so whatever is wrong with a version is found before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import msgspec
import redis

from headrace.catalog.aliases import (
    ARRIVING,
    CANARY,
    MOVE,
    PRODUCTION,
    SHADOW,
    Alias,
    AliasChange,
    Aliases,
    check_alias,
    decode_aliases,
    decode_history,
    find_former_version,
    is_version,
    move_arguments,
    read_aliases,
    read_history,
    set_arriving,
)
from headrace.catalog.contract_diff import Change, compare_contracts, has_breaking
from headrace.catalog.workers import decode_loaded, decode_refused, read_loaded, read_refused
from headrace.connection.commands import Pipeline, execute
from headrace.connection.server_time import READ_SERVER_TIME, decode_server_time
from headrace.errors import HeadraceError, InvalidInput, ModelError
from headrace.wire.keys import Keys
from headrace_worker.rollout import version_stats
from headrace_worker.rollout.version_stats import VersionStats
from headrace_worker.store.store import Store

#: Seconds between two looks at what workers say.
_LOOK_EVERY = 0.2


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """An alias as it was moved."""

    model: str
    alias: str
    #: Where it points now, and where it pointed; None is nowhere.
    version: str | None
    former: str | None
    share: float | None = None
    #: What changes for producers, from the version that served them before.
    changes: tuple[Change, ...] = ()
    #: The workers that had the version in memory when it was moved.
    workers: tuple[str, ...] = ()


class RolloutStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the workers that serve a model say of one version."""

    #: Those that have it, those that do not yet, and why some will not.
    ready: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    refused: Mapping[str, str] = {}


class Promoter:
    """Moves the aliases of models. `by` is who does it, as the history shows it; `max_bytes` a model's bound."""

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
        """Where the aliases of a model point now."""
        return decode_aliases(model, execute(self._client, read_aliases(self._keys, model)))

    def check_model_exists(self, model: str) -> None:
        """Raise UnknownModel for a model that the store does not have."""
        self._store.latest(model)

    def history(self, model: str) -> list[AliasChange]:
        """The moves of a model's aliases, the newest first."""
        return decode_history(execute(self._client, read_history(self._keys, model)))

    def status(self, model: str, version: str) -> RolloutStatus:
        """What workers say of a version at this moment."""
        commands = (
            READ_SERVER_TIME.args,
            read_loaded(self._keys, model).args,
            read_refused(self._keys, model).args,
        )
        time_reply, have, refused = execute(self._client, Pipeline(commands))
        now_ms = decode_server_time(time_reply)
        workers = decode_loaded(have, now_ms)
        wrong = decode_refused(refused, now_ms)
        ready = {name for name, one in workers.items() if version in one.versions}
        no = {wrong[version].worker: wrong[version].reason} if version in wrong else {}
        waiting = workers.keys() - ready - no.keys()
        return RolloutStatus(ready=tuple(sorted(ready)), pending=tuple(sorted(waiting)), refused=no)

    def compare_versions(self, model: str) -> list[tuple[str, str, VersionStats]]:
        """What production, canary and shadow came to: alias, version, tally. Those that there are."""
        by_name = self.aliases(model).by_name
        found = [(name, by_name[name].version) for name in (PRODUCTION, CANARY, SHADOW) if name in by_name]
        return [
            (
                name,
                version,
                version_stats.decode_stats(
                    execute(self._client, version_stats.read_command(self._keys, model, version))
                ),
            )
            for name, version in found
        ]

    def contract_changes(self, model: str, version: str) -> tuple[Change, ...]:
        """What changes for producers from the version that jobs run on now to this one. Checks its files too.

        Raises UnknownModel, or ModelError where it must not serve.
        """
        self._store.verify(model, version, max_bytes=self._max_bytes)
        now = self.aliases(model).by_name.get(PRODUCTION)
        serving = now.version if now else self._store.latest(model)
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
        """Let an alias point to a version, once every worker that serves the model has it in memory.

        `share` is the part of the jobs a canary takes; `force` promotes what breaks producers; `wait` is the
        seconds workers may take, 0 to move at once; `tell` hears what they say meanwhile. A canary that becomes
        production is no canary any more. Raises ModelError where a worker refuses the version, and HeadraceError
        where the alias was moved meanwhile or a worker did not load it in time: then nothing has changed.
        """
        alias, version = _checked(alias, share), _number(version)
        changes = self.contract_changes(model, version)
        if has_breaking(changes) and not force:
            said = "; ".join(change.text for change in changes if change.breaking)
            raise ModelError(
                f"{model}@{version} breaks producers: {said}. Use --force where they are ready for it"
            )
        ready: tuple[str, ...] = ()
        before = self.aliases(model).by_name
        now, then, canary = before.get(alias), Alias(version=version, share=share), before.get(CANARY)
        try:
            if wait:
                execute(self._client, set_arriving(self._keys, model, version))
                ready = self._await(model, version, wait, on_status)
            self._move(model, alias, now, then, why=reason)
        finally:
            execute(self._client, set_arriving(self._keys, model, None))
        if alias in {CANARY, SHADOW}:  # compared from now on
            tried = {version, *(before[name].version for name in before.keys() & {PRODUCTION})}
            execute(self._client, version_stats.delete_command(self._keys, model, sorted(tried)))
        if alias == PRODUCTION and canary is not None and canary.version == version:
            self._move(model, CANARY, canary, None, why="promoted to production")
        return Promotion(
            model=model,
            alias=alias,
            version=version,
            former=now.version if now else None,
            share=share,
            changes=changes,
            workers=ready,
        )

    def rollback(self, model: str, *, alias: str = PRODUCTION, reason: str = "") -> Promotion:
        """Let an alias point where it pointed before; a canary and a shadow are taken away. Waits for nobody.

        Raises HeadraceError where there is nothing to go back to.
        """
        check_alias(alias)
        now = self.aliases(model).by_name.get(alias)
        if now is None:
            raise HeadraceError(f"model {model} has no alias {alias}: there is nothing to roll back")
        then = None
        if alias not in {CANARY, SHADOW}:
            former = find_former_version(self.history(model), alias)
            if former is None:
                raise HeadraceError(
                    f"{alias} of {model} has pointed to {model}@{now.version} only: promote the version you want"
                )
            self._store.verify(model, former, max_bytes=self._max_bytes)
            then = Alias(version=former)
        self._move(model, alias, now, then, why=reason, rollback=True)
        return Promotion(model=model, alias=alias, version=then.version if then else None, former=now.version)

    def _move(
        self, model: str, alias: str, now: Alias | None, then: Alias | None, *, why: str, rollback: bool = False
    ) -> None:
        names, words = move_arguments(
            self._keys, model, alias, now, then, by=self._by, reason=why, rollback=rollback
        )
        if not execute(self._client, MOVE(names, words)):
            raise HeadraceError(f"somebody else moved {alias} of {model} meanwhile: look at it, and try again")

    def _await(
        self, model: str, version: str, seconds: float, tell: Callable[[RolloutStatus], None]
    ) -> tuple[str, ...]:
        """The workers that have the version in memory: all there are."""
        end = self._clock() + seconds
        while True:
            said = self.status(model, version)
            tell(said)
            if said.refused:
                told = "; ".join(f"{worker}: {why}" for worker, why in said.refused.items())
                raise ModelError(f"{model}@{version} does not serve, and nothing was changed. {told}")
            if not said.pending:
                return said.ready
            if self._clock() >= end:
                raise HeadraceError(
                    f"{', '.join(said.pending)} had not loaded {model}@{version} after {seconds:g} s; nothing was "
                    "changed. Look at their logs, or promote with --no-wait"
                )
            self._sleep(_LOOK_EVERY)


def _checked(alias: str, share: float | None) -> str:
    if alias == ARRIVING:
        raise InvalidInput(f"{alias} is the name Headrace itself uses while workers load a version; take another")
    if (alias == CANARY) != (share is not None):
        raise InvalidInput("a canary has a share of the jobs, and nothing else has: --canary 10%")
    if share is not None and not 0 < share <= 1:
        raise InvalidInput(f"a canary takes more than 0% and at most 100% of the jobs, not {share:.4%}")
    return check_alias(alias)


def _number(version: str) -> str:
    if not is_version(version):
        raise InvalidInput(f"a version is a number, as `headrace models list` shows it; got {version[:40]!r}")
    return version
