"""Remove old versions that nobody needs any more.

what is old ─> what of it is named ─> its contract is withdrawn ─> named after all? ─> removed
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
from headrace_worker.store.backend import Unfinished
from headrace_worker.store.store import Store

#: What was begun this long ago and is no version yet never becomes one.
_ABANDONED = timedelta(days=1)


class CollectionItem(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of an old version, or of something left over."""

    model: str
    #: Its number; or the name of what is left over.
    version: str
    #: Whether it goes.
    remove: bool
    #: Bytes it takes.
    size: int
    #: What names it, where it stays; what it is, where it goes and is no version.
    reason: str = ""


def select_old(versions: Sequence[str], keep: int) -> list[str]:
    """The versions, given oldest first, that are not among the newest `keep`."""
    return list(versions[: max(0, len(versions) - max(1, keep))])


class GarbageCollector:
    """Removes what nobody needs from one store, as one Redis knows it.

    `letters` iterates over the dead letters of a model.
    """

    def __init__(
        self, store: Store, settings: WorkerSettings, letters: Callable[[str], Iterable[DeadLetter]], *, keep: int
    ) -> None:
        self._store, self._settings, self._letters, self._keep = store, settings, letters, keep
        self._keys = Keys(settings.key_prefix)

    def find_candidates(self, models: Sequence[str], now: datetime) -> list[CollectionItem]:
        """What would become of the old versions of some models, and of what was left over a day before `now`."""
        found: list[CollectionItem] = []
        for model in models:
            if candidates := select_old(self._store.versions(model), self._keep):
                named = self._named(model)
                found += [self._found(model, version, named) for version in candidates]
        for left in self._store.list_unfinished(now - _ABANDONED):
            if left.model in models:
                found.append(
                    CollectionItem(
                        model=left.model, version=left.name, remove=True, size=left.size, reason="never finished"
                    )
                )
        return found

    def collect(
        self, found: Sequence[CollectionItem], wait: Callable[[float], None] = time.sleep
    ) -> list[CollectionItem]:
        """Remove what was found to go, but for what is named by now; says what became of each.

        Producers trust a contract for a while, so it is withdrawn first and that time waited for: whoever names
        the version until then is met, and nobody does later.
        """
        going = [one for one in found if one.remove and not one.reason]
        withdrawn = self._withdraw(going)
        if withdrawn:
            wait(self._settings.contract_ttl)
        named = {model: self._named(model) for model in {one.model for one in going}}
        return [self._deal(one, named.get(one.model, {}), withdrawn) for one in found]

    def _deal(
        self, one: CollectionItem, named: Mapping[str, str], withdrawn: Mapping[tuple[str, str], bytes]
    ) -> CollectionItem:
        if one.remove and one.reason:
            self._store.remove_unfinished(Unfinished(model=one.model, name=one.version, size=one.size))
        elif one.remove and one.version in named:
            if contract := withdrawn.get((one.model, one.version)):
                with connect(self._settings) as redis, translate_errors(self._settings):
                    redis.hset(self._keys.contracts(one.model), one.version, contract)
            return self._found(one.model, one.version, named)
        elif one.remove:
            self._store.remove(one.model, one.version)
        return one

    def _found(self, model: str, version: str, named: Mapping[str, str]) -> CollectionItem:
        why = named.get(version, "")
        size = self._store.size(model, version)
        return CollectionItem(model=model, version=version, remove=not why, size=size, reason=why)

    def _named(self, model: str) -> dict[str, str]:
        with connect(self._settings) as redis, translate_errors(self._settings):
            named = references.named(redis, self._keys, model)
        return references.by_letters(self._letters(model)) | named

    def _withdraw(self, going: Sequence[CollectionItem]) -> dict[tuple[str, str], bytes]:
        withdrawn: dict[tuple[str, str], bytes] = {}
        with connect(self._settings) as redis, translate_errors(self._settings):
            for one in going:
                name = self._keys.contracts(one.model)
                contract: bytes | None = redis.hget(name, one.version)
                if contract is not None:
                    withdrawn[one.model, one.version] = contract
                    redis.hdel(name, one.version)
        return withdrawn
