"""Copies of a remote store's files on this machine: artifacts by their digest, and small files by their name.

    <folder>/artifacts/<sha256>                     limited in total size; the least recently used are removed
    <folder>/stores/<store>/versions.json           the versions when they were last listed
                           /<model>/<version>/...   manifests and signatures

Many processes may use a cache at once: a file appears complete, by a rename, and an open file stays readable
after another process removes it. The cache is not trusted: an artifact is checked against its digest each time it
is read, and fetched again if it was changed.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from headrace.errors import ModelError
from headrace.wire.stored import DECODE_ERRORS
from headrace_worker.store import chunks
from headrace_worker.store.folder import read_up_to

#: Seconds after which a temporary file counts as left behind by a process that died.
_ABANDONED_AFTER = 3600.0


class VersionListing(msgspec.Struct, frozen=True):
    """The versions in a store when they were last listed."""

    #: The time of the listing, in seconds since 1970 by this machine's clock.
    read_at: float
    #: Version numbers by model.
    versions: Mapping[str, list[str]]


class Cache:
    """A folder with copies of remote stores' files. It is created on the first write, for its owner only."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self.folder, self._max_bytes = folder, max_bytes
        self._artifacts = folder / "artifacts"

    def read_artifact(self, digest: str, max_bytes: int) -> bytes | None:
        """Return the cached bytes with this SHA-256. None if there are none, or more than `max_bytes`."""
        path = self._artifacts / digest
        try:
            data = read_up_to(path, max_bytes)
        except OSError:
            return None
        if len(data) > max_bytes:
            return None
        if not has_digest(data, digest):
            path.unlink(missing_ok=True)
            return None
        with suppress(OSError):
            os.utime(path)  # marks it as recently used
        return data

    def put_artifact(self, digest: str, data: bytes) -> None:
        """Cache an artifact, and remove the least recently used ones if the cache exceeds its size."""
        if len(data) > self._max_bytes:
            return
        self.write(self._artifacts / digest, data)
        self._remove_old(keep=digest)

    def open(self, url: str) -> CachedStore:
        """Return the cached small files of the store at a URL."""
        return CachedStore(self, self.folder / "stores" / hashlib.sha256(url.encode()).hexdigest()[:16])

    def _remove_old(self, keep: str) -> None:
        total, now = 0, time.time()
        files = []
        for path in self._artifacts.iterdir():
            with suppress(FileNotFoundError):  # another process may remove files at the same time
                status = path.stat()
                if path.name.startswith("."):
                    if now - status.st_mtime > _ABANDONED_AFTER:
                        path.unlink()
                    continue
                files.append((path.name == keep, status.st_mtime, status.st_size, path))
        for _, _, size, path in sorted(files, reverse=True):
            total += size
            if total > self._max_bytes:
                path.unlink(missing_ok=True)

    def write(self, path: Path, data: bytes) -> None:
        """Write a file within the cache; readers see all of it or nothing. Raises ModelError."""
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(prefix=".", dir=path.parent)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    chunks.write(file, data)
                Path(temporary).replace(path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise ModelError(
                f"the model cache {self.folder} cannot be written: {error.strerror}; "
                "set HEADRACE_MODEL_CACHE to a writable folder"
            ) from None


class CachedStore:
    """The cached small files of one store."""

    def __init__(self, cache: Cache, folder: Path) -> None:
        self._cache, self._folder = cache, folder

    def read(self, model: str, version: str, name: str) -> bytes | None:
        """Return a small file of a version; None if it is not cached."""
        try:
            return (self._folder / model / version / name).read_bytes()
        except OSError:
            return None

    def put(self, model: str, version: str, name: str, data: bytes) -> None:
        """Cache a small file of a version."""
        self._cache.write(self._folder / model / version / name, data)

    def read_listing(self) -> VersionListing | None:
        """Return the last listing of the store's versions by any process; None if there is none."""
        try:
            return msgspec.json.decode((self._folder / "versions.json").read_bytes(), type=VersionListing)
        except (OSError, *DECODE_ERRORS):
            return None

    def put_listing(self, listing: VersionListing) -> None:
        """Cache a listing, and remove the files of versions that the store no longer has."""
        for model in self._folder.glob("*/"):
            for version in model.glob("*/"):
                if version.name not in listing.versions.get(model.name, ()):
                    shutil.rmtree(version, ignore_errors=True)
        self._cache.write(self._folder / "versions.json", msgspec.json.encode(listing))


def has_digest(data: bytes, digest: str) -> bool:
    """Compare the data's SHA-256 with a digest in hexadecimal."""
    actual = hashlib.sha256()
    for chunk in chunks.split(data):
        actual.update(chunk)
    return hmac.compare_digest(actual.hexdigest().encode(), digest.encode())
