"""The steps of promotion and rollback that need no model store: Promoter runs them, and Flower's pages too.

Each is an operation: it yields commands, and whoever runs it sends them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from headrace.catalog.aliases import (
    CANARY,
    PRODUCTION,
    SHADOW,
    Alias,
    Aliases,
    decode_aliases,
    decode_history,
    find_former_version,
    move_alias,
    read_aliases,
    read_history,
)
from headrace.catalog.changes import count_change
from headrace.catalog.contract_diff import Change, has_breaking
from headrace.catalog.workers import decode_loaded, decode_refused, read_loaded, read_refused, read_statuses
from headrace.connection.commands import Operation, Pipeline
from headrace.connection.server_time import READ_SERVER_TIME, decode_server_time
from headrace.errors import HeadraceError, ModelError
from headrace.wire.keys import Keys
from headrace_worker.rollout import version_stats


class AliasConflict(HeadraceError):
    """An alias is not what the change expects: somebody has moved it, or there is no version to go back to."""


class RolloutStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one version at the workers that serve its model, by name of worker."""

    #: Workers that have the version in memory, and those that have not loaded it yet.
    ready: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    #: Workers that refuse the version, with the reason.
    refused: Mapping[str, str] = {}

    def check_refusals(self, model: str, version: str) -> None:
        """Raise ModelError if a worker refuses the version."""
        if self.refused:
            reasons = "; ".join(f"{worker}: {reason}" for worker, reason in self.refused.items())
            raise ModelError(f"{model}@{version} does not serve, and nothing was changed. {reasons}")


def load_aliases(keys: Keys, model: str) -> Operation[Aliases]:
    """Return the aliases of a model."""
    return decode_aliases(model, (yield read_aliases(keys, model)))


def read_status(keys: Keys, model: str, version: str) -> Operation[RolloutStatus]:
    """Return the state of a version at the workers now."""
    replies = yield Pipeline(
        (READ_SERVER_TIME.args, read_loaded(keys, model).args, read_refused(keys, model).args)
    )
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    time_reply, loaded_reply, refused_reply = replies
    now_ms = decode_server_time(time_reply)
    statuses = decode_loaded(model, loaded_reply, now_ms)
    load_error = decode_refused(model, refused_reply, now_ms).get(version)
    ready = {name for name, status in statuses.items() if version in status.versions}
    refused = {} if load_error is None else {load_error.worker: load_error.reason}
    pending = statuses.keys() - ready - refused.keys()
    return RolloutStatus(ready=tuple(sorted(ready)), pending=tuple(sorted(pending)), refused=refused)


def read_routed_aliases(keys: Keys, model: str) -> Operation[list[dict[str, Alias]]]:
    """Read the aliases by which each worker routes jobs of a model, if the worker says so."""
    statuses = yield from read_statuses(keys, model)
    return [status.aliases for status in statuses.values() if status.aliases is not None]


def check_changes(model: str, version: str, changes: Sequence[Change], *, force: bool, advice: str) -> None:
    """Raise ModelError if a version breaks producers and `force` is not set. `advice` says how to set it."""
    if has_breaking(changes) and not force:
        breaking = "; ".join(change.text for change in changes if change.breaking)
        raise ModelError(f"{model}@{version} breaks producers: {breaking}. {advice}")


def move(
    keys: Keys,
    model: str,
    alias: str,
    before: Alias | None,
    after: Alias | None,
    *,
    by: str,
    reason: str,
    rollback: bool = False,
) -> Operation[None]:
    """Move an alias, and record who did it and why. Raises AliasConflict if somebody moved it meanwhile."""
    is_moved = yield move_alias(keys, model, alias, before, after, by=by, reason=reason, rollback=rollback)
    if not is_moved:
        raise AliasConflict(
            f"{alias} of {model} was changed by somebody else meanwhile: "
            f"see `headrace models history {model}`, and try again"
        )
    yield from count_change(keys)


def finish_promotion(
    keys: Keys, model: str, alias: str, version: str, by_name: Mapping[str, Alias], *, by: str
) -> Operation[None]:
    """Start a comparison where a version is tried now; end the canary that became production.

    `by_name` are the aliases before the promotion.
    """
    if alias in {CANARY, SHADOW}:  # the comparison starts with this promotion
        tried = {version, *(by_name[name].version for name in by_name.keys() & {PRODUCTION})}
        yield version_stats.delete_command(keys, model, sorted(tried))
    canary = by_name.get(CANARY)
    if alias == PRODUCTION and canary is not None and canary.version == version:
        yield from move(keys, model, CANARY, canary, None, by=by, reason="promoted to production")


def find_rollback(keys: Keys, model: str, alias: str, by_name: Mapping[str, Alias]) -> Operation[str | None]:
    """Return the version that an alias goes back to; None for a canary and a shadow, which end.

    Raises AliasConflict if there is no former version.
    """
    before = by_name.get(alias)
    if before is None:
        raise AliasConflict(f"model {model} has no alias {alias}: there is nothing to roll back")
    if alias in {CANARY, SHADOW}:
        return None
    history = decode_history(model, (yield read_history(keys, model)))
    former = find_former_version(history, alias)
    if former is None:
        raise AliasConflict(
            f"{alias} of {model} has pointed to {model}@{before.version} only: promote the version you want"
        )
    return former
