"""Canaries and shadows beside production, and the moves of aliases that Flower makes: it has no model store.

So it promotes only a version that every worker of the model has in memory, and compares the contracts that workers
have published.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from redis.exceptions import NoPermissionError

from headrace.catalog.aliases import (
    CANARY,
    PRODUCTION,
    SHADOW,
    Alias,
    AliasChange,
    check_alias,
    decode_history,
    is_version,
    read_history,
)
from headrace.catalog.contract_diff import compare_contracts
from headrace.catalog.published import ContractCache
from headrace.clock import utc_now
from headrace.connection.commands import Operation
from headrace.errors import InvalidInput, ModelError
from headrace.wire.keys import Keys
from headrace_worker.rollout import version_stats
from headrace_worker.rollout.alias_moves import (
    AliasConflict,
    check_changes,
    find_rollback,
    finish_promotion,
    load_aliases,
    move,
    read_status,
)
from headrace_worker.rollout.canary import CanaryLimits, compare
from headrace_worker.rollout.version_stats import VersionStats

#: The longest reason that is stored, in characters.
_MAX_REASON = 500
#: Changes of aliases that a page shows.
_MAX_CHANGES = 20


class ComparedVersion(msgspec.Struct, frozen=True, kw_only=True):
    """Production, a canary or a shadow with its numbers since the comparison began."""

    alias: str
    version: str
    jobs: int
    failed: int
    #: The times that a batch took to predict; None without jobs.
    p50_seconds: float | None
    p99_seconds: float | None
    #: Predictions of a shadow that were compared with production's, and those that differ; None for others.
    compared: int | None
    differing: int | None
    #: The verdict in words; None for production.
    verdict: str | None
    #: True where it does worse than production.
    is_bad: bool = False


def read_comparison(
    keys: Keys, model: str, by_name: Mapping[str, Alias], limits: CanaryLimits
) -> Operation[tuple[ComparedVersion, ...]]:
    """Return production, canary and shadow with their verdicts; nothing where no version is tried.

    Nothing either where the Redis user may not read their numbers.
    """
    if not by_name.keys() & {CANARY, SHADOW}:
        return ()
    try:
        tried = yield from version_stats.read_tried(keys, model, by_name)
    except NoPermissionError:  # a user of an earlier release; the rest of the page needs no more rights
        return ()
    production = next((stats for name, _, stats in tried if name == PRODUCTION), VersionStats())
    return tuple(_compare(name, version, stats, production, limits) for name, version, stats in tried)


def _compare(
    alias: str, version: str, stats: VersionStats, production: VersionStats, limits: CanaryLimits
) -> ComparedVersion:
    verdict = None if alias == PRODUCTION else compare(stats, production, limits)
    return ComparedVersion(
        alias=alias,
        version=version,
        jobs=stats.jobs,
        failed=stats.failed,
        p50_seconds=stats.quantile_seconds(0.5),
        p99_seconds=stats.quantile_seconds(0.99),
        compared=stats.compared if alias == SHADOW else None,
        differing=stats.differing if alias == SHADOW else None,
        verdict=None if verdict is None else str(verdict),
        is_bad=verdict is not None and verdict.is_bad,
    )


def read_changes(keys: Keys, model: str) -> Operation[tuple[AliasChange, ...]]:
    """Return the last changes of a model's aliases, the newest first."""
    reply = yield read_history(keys, model)
    return tuple(decode_history(model, reply)[:_MAX_CHANGES])


class Author(msgspec.Struct, frozen=True, kw_only=True):
    """The person who moves an alias, and the reason, for the history."""

    by: str
    reason: str


def check_reason(reason: str) -> str:
    """Return the reason of a change without the space around it. Raises InvalidInput if there is none."""
    reason = reason.strip()
    if not reason:
        raise InvalidInput("give a reason for the change: it is stored in the history of the alias")
    if len(reason) > _MAX_REASON:
        raise InvalidInput(f"a reason has at most {_MAX_REASON} characters, not {len(reason)}")
    return reason


def promote(
    keys: Keys, contracts: ContractCache, model: str, version: str, author: Author, *, expected: str, force: bool
) -> Operation[None]:
    """Point `production` to a version that every worker of the model has in memory.

    `expected` is the version that the person saw in production, "" for none. `force` promotes a version that
    breaks producers. Raises UnknownModel, InvalidInput, ModelError, and AliasConflict if production is another
    version now.
    """
    if not is_version(version):
        raise InvalidInput(f"a version is a number; got {version[:40]!r}")
    by_name = (yield from load_aliases(keys, model)).by_name
    before = by_name.get(PRODUCTION)
    _check_expected(model, PRODUCTION, before, expected)
    now = utc_now()
    new = yield from contracts.resolve(model, version, now)
    serving = yield from contracts.resolve(model, None, now)
    status = yield from read_status(keys, model, version)
    status.check_refusals(model, version)
    if status.pending or not status.ready:
        missing = f"not loaded by {', '.join(status.pending)}" if status.pending else "loaded by no worker"
        raise ModelError(
            f"{model}@{version} is {missing}: `headrace models promote` makes the workers load it, Flower does not"
        )
    changes = compare_contracts(serving, new)
    check_changes(model, version, changes, force=force, advice="Tick `force` if the producers are ready for it")
    after = Alias(version=version)
    yield from move(keys, model, PRODUCTION, before, after, by=author.by, reason=author.reason)
    yield from finish_promotion(keys, model, PRODUCTION, version, by_name, by=author.by)


def roll_back(keys: Keys, model: str, alias: str, author: Author, *, expected: str) -> Operation[None]:
    """Point an alias to its former version; end a canary or a shadow.

    `expected` is the version that the person saw at the alias. Raises InvalidInput, ModelError if a worker refuses
    the former version, and AliasConflict if there is none or the alias is another version now.
    """
    check_alias(alias)
    by_name = (yield from load_aliases(keys, model)).by_name
    former = yield from find_rollback(keys, model, alias, by_name)
    _check_expected(model, alias, by_name[alias], expected)
    if former is not None:
        (yield from read_status(keys, model, former)).check_refusals(model, former)
    after = None if former is None else Alias(version=former)
    yield from move(keys, model, alias, by_name[alias], after, by=author.by, reason=author.reason, rollback=True)


def _check_expected(model: str, alias: str, now: Alias | None, expected: str) -> None:
    version = "" if now is None else now.version
    if version != expected:
        raise AliasConflict(
            f"{alias} of {model} is {version or 'no version'} now, not {expected or 'none'}: load the page again"
        )
