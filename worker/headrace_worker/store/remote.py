"""The backend for a URL that fsspec supports: `s3://bucket/prefix`, `gs://...`, `az://...`.

    <store>/<model>/<version>/reserved        the first file written: it reserves the number for one writer
                              artifact.skops
                              manifest.json   the last file written: without it the version does not exist

Object storage cannot rename a folder in one step. Instead a writer reserves a number with a file that is only
written if there is none (If-None-Match). Whether the storage supports such conditional writes is tried once. If it
does not, each writer adds a reservation file of its own and has the number if there is no other.

Files that were read are cached on this machine (`cache`): cached versions serve while the storage is unavailable.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Mapping
from datetime import datetime

from headrace.errors import HeadraceError, StoreUnavailable
from headrace_worker.store.backend import MANIFEST_NAME, VERSION_NUMBER, SmallFiles, UnfinishedVersion
from headrace_worker.store.cache import Cache, CachedStore, VersionListing, has_digest
from headrace_worker.store.object_storage import ObjectStorage

log = logging.getLogger("headrace.models")

#: Seconds after which the versions are listed again. Longer in forked processes: their parent lists them too.
_REFRESH_SECONDS, _REFRESH_SECONDS_FORKED = 2.0, 60.0
#: The reservation file; where conditional writes are not supported, a prefix of its name.
_RESERVATION = "reserved"
#: The file that a conditional write is tried with.
_PROBE = ".conditions"
#: Seconds, at the most, that a writer waits before it tries the next number after meeting another writer.
_MAX_BACKOFF = 0.2


class RemoteBackend:
    """The versions at a URL. Safe for many threads, and for processes forked from this one.

    With a cache, versions are listed in the background, and the list may be a few seconds old.
    """

    def __init__(self, url: str, cache: Cache | None = None) -> None:
        self._storage, self._cache = ObjectStorage(url), cache
        self._cached_store = cache.open(url) if cache else None
        self._created_in = self._pid = os.getpid()
        self._listing: VersionListing | None = None
        self._refreshing = threading.Lock()
        self._is_unavailable = False
        #: Whether the storage supports conditional writes; None until that was tried.
        self._conditional_writes: bool | None = None

    @property
    def title(self) -> str:
        """The URL, without a password."""
        return self._storage.title

    # --- reading

    def versions(self) -> Mapping[str, list[str]]:
        """Return the version numbers of each model; the last known ones if the storage is unavailable."""
        if self._cached_store is None:
            return self._list_versions()
        listing = self._listing
        if listing is None:
            return self._first_listing(self._cached_store).versions
        if _age(listing) >= _REFRESH_SECONDS:
            newer = self._cached_store.read_listing()  # another process may have listed them
            if newer and newer.read_at > listing.read_at:
                listing = self._listing = newer
        is_forked = os.getpid() != self._created_in
        if _age(listing) >= (_REFRESH_SECONDS_FORKED if is_forked else _REFRESH_SECONDS):
            self._refresh_in_background()
        return listing.versions

    def read(
        self,
        model: str,
        version: str,
        name: str,
        *,
        max_bytes: int,
        digest: str | None = None,
        fresh: bool = False,
    ) -> bytes:
        """Return at most `max_bytes` + 1 bytes of a file."""
        path = f"{model}/{version}/{name}"
        if self._cache is None or self._cached_store is None:
            return self._storage.read(path, max_bytes)
        cached = None
        if not fresh and digest:
            cached = self._cache.read_artifact(digest, max_bytes)
        elif not fresh:
            cached = self._cached_store.read(model, version, name)
        if cached is not None and len(cached) <= max_bytes:
            return cached
        data = self._storage.read(path, max_bytes)
        if digest is None:
            self._cached_store.put(model, version, name, data)
        elif has_digest(data, digest):
            self._cache.put_artifact(digest, data)
        return data

    def size(self, model: str, version: str) -> int:
        """Return the total size of a version's files, in bytes."""
        return sum(self._storage.list_sizes(f"{model}/{version}").values())

    def _first_listing(self, cached_store: CachedStore) -> VersionListing:
        cached = cached_store.read_listing()
        if cached is not None and _age(cached) < _REFRESH_SECONDS:
            self._listing = cached
            return cached
        try:
            return self._refresh()
        except StoreUnavailable as error:
            if cached is None:
                raise
            log.warning("%s; serving the versions cached on this machine", error)
            self._is_unavailable, self._listing = True, _new_listing(cached.versions)
            return self._listing

    def _refresh_in_background(self) -> None:
        """List the versions in a thread, so that no caller waits for the storage."""
        if os.getpid() != self._pid:  # the parent may have held the lock when this process was forked
            self._refreshing, self._pid = threading.Lock(), os.getpid()
        if self._refreshing.acquire(blocking=False):
            threading.Thread(target=self._refresh_once, name="headrace-store", daemon=True).start()

    def _refresh_once(self) -> None:
        try:
            self._refresh()
        except HeadraceError as error:
            if not self._is_unavailable:
                log.warning("%s; serving the versions cached on this machine", error)
            self._is_unavailable = True
            if self._listing is not None:  # a failed attempt counts as a refresh, or each call would start one
                self._listing = _new_listing(self._listing.versions)
        else:
            if self._is_unavailable:
                log.warning("the model store %s is available again", self.title)
            self._is_unavailable = False
        finally:
            self._refreshing.release()

    def _refresh(self) -> VersionListing:
        listing = self._listing = _new_listing(self._list_versions())
        if self._cached_store is not None:
            self._cached_store.put_listing(listing)
        return listing

    def _list_versions(self) -> dict[str, list[str]]:
        versions: dict[str, list[str]] = {}
        for path in self._storage.list_sizes(""):
            match path.split("/"):
                case [model, number, name] if name == MANIFEST_NAME and VERSION_NUMBER.fullmatch(number):
                    versions.setdefault(model, []).append(number)
        return versions

    # --- writing

    def publish(self, model: str, artifacts: Mapping[str, bytes], small_files: SmallFiles) -> str:
        """Store a version under the next free number and return that number."""
        number = max(self._used_numbers(model), default=0) + 1
        while not self._reserve(model, str(number)):
            time.sleep(random.uniform(0, _MAX_BACKOFF))  # noqa: S311  # keeps two writers from meeting again
            number += 1
        for name, data in {**artifacts, **small_files(str(number))}.items():
            self.put(model, str(number), name, data)
        return str(number)

    def put(self, model: str, version: str, name: str, data: bytes) -> None:
        """Add a file to a version."""
        self._storage.write(f"{model}/{version}/{name}", data)

    def remove(self, model: str, version: str) -> None:
        """Remove a version: its manifest first, and its reservation last, so that its number stays reserved."""
        names = self._file_names(model, version)
        for name in sorted(names, key=lambda name: (name != MANIFEST_NAME, name.startswith(_RESERVATION))):
            self._storage.delete(f"{model}/{version}/{name}")

    def list_unfinished(self, before: datetime) -> list[UnfinishedVersion]:
        """Return the versions without a manifest whose files were all written before that time."""
        sizes: dict[tuple[str, str], dict[str, int]] = {}
        for path, size in self._storage.list_sizes("").items():
            match path.split("/"):
                case [model, number, name] if VERSION_NUMBER.fullmatch(number):
                    sizes.setdefault((model, number), {})[name] = size
        return [
            UnfinishedVersion(model=model, name=number, size=sum(names.values()))
            for (model, number), names in sizes.items()
            # A reservation alone is not listed: it stays, or a very slow writer could meet a new one.
            if MANIFEST_NAME not in names
            and not all(name.startswith(_RESERVATION) for name in names)
            and all(self._storage.modified_at(f"{model}/{number}/{name}") < before for name in names)
        ]

    def remove_unfinished(self, unfinished: UnfinishedVersion) -> None:
        """Remove the files of an unfinished version, except the reservation of its number."""
        for path in self._storage.list_sizes(f"{unfinished.model}/{unfinished.name}"):
            if not path.rpartition("/")[2].startswith(_RESERVATION):
                self._storage.delete(path)

    def _file_names(self, model: str, version: str) -> list[str]:
        return [path.rpartition("/")[2] for path in self._storage.list_sizes(f"{model}/{version}")]

    def _used_numbers(self, model: str) -> set[int]:
        numbers = (path.split("/")[1] for path in self._storage.list_sizes(model))
        return {int(number) for number in numbers if VERSION_NUMBER.fullmatch(number)}

    def _reserve(self, model: str, version: str) -> bool:
        """Reserve a number for this writer alone. Return False if another writer has it."""
        token = f"{socket.gethostname()} {os.getpid()} {uuid.uuid4().hex}".encode()
        if self._supports_conditional_writes():
            path = f"{model}/{version}/{_RESERVATION}"
            # A write whose reply was lost is repeated, and then finds the file it has written itself.
            return self._storage.create(path, token) or self._storage.read(path, len(token)) == token
        own_name = f"{_RESERVATION}.{uuid.uuid4().hex}"
        self.put(model, version, own_name, token)
        # Of two writers that first write and then list, at least one sees the other's file.
        if self._file_names(model, version) == [own_name]:
            return True
        self._storage.delete(f"{model}/{version}/{own_name}")
        return False

    def _supports_conditional_writes(self) -> bool:
        if self._conditional_writes is None:
            create = self._storage.create
            self._conditional_writes = not create(_PROBE, b"") or not create(_PROBE, b"")
        return self._conditional_writes


def _new_listing(versions: Mapping[str, list[str]]) -> VersionListing:
    return VersionListing(read_at=time.time(), versions=versions)


def _age(listing: VersionListing) -> float:
    """Return a listing's age in seconds; infinity if this machine's clock was set back since."""
    age = time.time() - listing.read_at
    return age if age >= 0 else float("inf")
