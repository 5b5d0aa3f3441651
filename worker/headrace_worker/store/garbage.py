"""Remove old versions that are not in use.

find old versions ─> find references to them ─> withdraw their contracts ─> find references again ─> remove
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from headrace.connection.connect import connect
from headrace.connection.errors import translate_errors
from headrace.wire.dead_letter import DeadLetter
from headrace.wire.keys import Keys
from headrace_worker.settings import WorkerSettings
from headrace_worker.store import references
from headrace_worker.store.backend import UnfinishedVersion
from headrace_worker.store.store import Store

#: The time without a write after which an unfinished version will never be finished.
_ABANDONED_AFTER = timedelta(days=1)


class CollectionItem(msgspec.Struct, frozen=True, kw_only=True):
    """An old version, or the files of an unfinished one, and the decision to remove or keep it."""

    model: str
    #: The version's number; the folder's name for an unfinished version.
    version: str
    remove: bool
    #: Total size of its files, in bytes.
    size: int
    #: The reference that keeps a version; "never finished" for an unfinished one; else empty.
    reason: str = ""

    @property
    def is_unfinished(self) -> bool:
        """True for the files of a version that was never finished."""
        return self.remove and bool(self.reason)


def select_old(versions: Sequence[str], keep: int) -> list[str]:
    """Return all but the newest `keep` versions; at least one is left out. `versions` is sorted, oldest first."""
    return list(versions[: max(0, len(versions) - max(1, keep))])


class GarbageCollector:
    """The removal of versions from one store that nothing in one Redis refers to.

    `dead_letters` returns the dead letters of a model. `keep` newest versions of each model always stay.
    """

    def __init__(
        self,
        store: Store,
        settings: WorkerSettings,
        dead_letters: Callable[[str], Iterable[DeadLetter]],
        *,
        keep: int,
    ) -> None:
        self._store, self._settings, self._dead_letters, self._keep = store, settings, dead_letters, keep
        self._keys = Keys(settings.key_prefix)

    def find_candidates(self, models: Sequence[str], now: datetime) -> list[CollectionItem]:
        """Return the old versions of these models, and unfinished ones last written a day or more before `now`.

        Nothing is removed yet.
        """
        items: list[CollectionItem] = []
        for model in models:
            if candidates := select_old(self._store.versions(model), self._keep):
                in_use = self._find_in_use(model)
                items += [self._decide(model, version, in_use) for version in candidates]
        for unfinished in self._store.list_unfinished(now - _ABANDONED_AFTER):
            if unfinished.model in models:
                items.append(
                    CollectionItem(
                        model=unfinished.model,
                        version=unfinished.name,
                        remove=True,
                        size=unfinished.size,
                        reason="never finished",
                    )
                )
        return items

    def collect(
        self, items: Sequence[CollectionItem], wait: Callable[[float], None] = time.sleep
    ) -> list[CollectionItem]:
        """Remove the items marked for removal, and return all items; a version that is in use by now is kept.

        Producers cache a contract for a while. So the contracts are withdrawn first, and that time is waited for:
        a job that names a version is seen by the second search for references, and no later job can name it.
        """
        to_remove = [item for item in items if item.remove and not item.is_unfinished]
        withdrawn = self._withdraw_contracts(to_remove)
        if withdrawn:
            wait(self._settings.contract_ttl)
        in_use = {model: self._find_in_use(model) for model in {item.model for item in to_remove}}
        return [self._remove(item, in_use.get(item.model, {}), withdrawn) for item in items]

    def _remove(
        self, item: CollectionItem, in_use: Mapping[str, str], withdrawn: Mapping[tuple[str, str], bytes]
    ) -> CollectionItem:
        if item.is_unfinished:
            unfinished = UnfinishedVersion(model=item.model, name=item.version, size=item.size)
            self._store.remove_unfinished(unfinished)
        elif item.remove and item.version in in_use:
            if contract := withdrawn.get((item.model, item.version)):
                with connect(self._settings) as redis, translate_errors(self._settings):
                    redis.hset(self._keys.contracts(item.model), item.version, contract)
            return self._decide(item.model, item.version, in_use)
        elif item.remove:
            self._store.remove(item.model, item.version)
        return item

    def _decide(self, model: str, version: str, in_use: Mapping[str, str]) -> CollectionItem:
        reason = in_use.get(version, "")
        size = self._store.size(model, version)
        return CollectionItem(model=model, version=version, remove=not reason, size=size, reason=reason)

    def _find_in_use(self, model: str) -> dict[str, str]:
        with connect(self._settings) as redis, translate_errors(self._settings):
            in_use = references.find_versions_in_use(redis, self._keys, model)
        return references.find_versions_of_dead_letters(self._dead_letters(model)) | in_use

    def _withdraw_contracts(self, items: Sequence[CollectionItem]) -> dict[tuple[str, str], bytes]:
        """Remove the contracts of these versions from Redis, and return them by model and version."""
        withdrawn: dict[tuple[str, str], bytes] = {}
        with connect(self._settings) as redis, translate_errors(self._settings):
            for item in items:
                key = self._keys.contracts(item.model)
                contract: bytes | None = redis.hget(key, item.version)
                if contract is not None:
                    withdrawn[item.model, item.version] = contract
                    redis.hdel(key, item.version)
        return withdrawn
