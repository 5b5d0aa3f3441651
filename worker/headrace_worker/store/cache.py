"""What was read of a remote model store, kept on this machine: artifacts by their digest, and small files.

    <folder>/artifacts/<sha256>                     at most so many bytes; what was used last stays
    <folder>/stores/<store>/versions.json           what the store had, when it was last asked
                           /<model>/<version>/...   manifests and signatures

Any number of processes use it at once: a file appears as a whole, by a rename, and whoever has opened one that
another process drops can read on. Nothing in it is taken on trust: artifacts are checked against their digest
each time they are read, and what is found changed is fetched again.
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
from headrace_worker.store import chunks
from headrace_worker.store.folder import read_up_to

#: Seconds after which the half of a file that somebody began to write is nobody's any more.
_ABANDONED = 3600.0


class CachedFile(msgspec.Struct, frozen=True):
    """What a store had."""

    #: When it was asked, in seconds since 1970 by this machine's clock.
    read_at: float
    #: The numbers of the versions, by model.
    versions: Mapping[str, list[str]]


class Cache:
    """A folder with what was read of remote stores. Made when something is put in, for its owner only."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self.folder, self._max_bytes = folder, max_bytes
        self._artifacts = folder / "artifacts"

    def artifact(self, digest: str, most: int) -> bytes | None:
        """The bytes that have this SHA-256, if they are here and no more than `most`."""
        path = self._artifacts / digest
        try:
            data = read_up_to(path, most)
        except OSError:
            return None
        if len(data) > most:
            return None
        if not is_digest(digest, data):
            path.unlink(missing_ok=True)
            return None
        with suppress(OSError):
            os.utime(path)  # used now: others go first
        return data

    def put_artifact(self, digest: str, data: bytes) -> None:
        """Keep an artifact, and drop those used longest ago where there is not room for all."""
        if len(data) > self._max_bytes:
            return
        self._write(self._artifacts / digest, data)
        self._drop(keep=digest)

    def open(self, store: str) -> CachedStore:
        """What is known of a store, by its URL."""
        return CachedStore(self, self.folder / "stores" / hashlib.sha256(store.encode()).hexdigest()[:16])

    def _drop(self, keep: str) -> None:
        kept, now = 0, time.time()
        found = []
        for path in self._artifacts.iterdir():
            with suppress(FileNotFoundError):  # another process drops too
                about = path.stat()
                if path.name.startswith("."):
                    if now - about.st_mtime > _ABANDONED:
                        path.unlink()
                    continue
                found.append((path.name == keep, about.st_mtime, about.st_size, path))
        for _, _, size, path in sorted(found, reverse=True):
            kept += size
            if kept > self._max_bytes:
                path.unlink(missing_ok=True)

    def _write(self, path: Path, data: bytes) -> None:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, unfinished = tempfile.mkstemp(prefix=".", dir=path.parent)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    chunks.write(file, data)
                Path(unfinished).replace(path)
            except BaseException:
                Path(unfinished).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise ModelError(
                f"the cache of models {self.folder} cannot be written: {error.strerror}; "
                "set HEADRACE_MODEL_CACHE to a folder that can"
            ) from None


class CachedStore:
    """What the cache knows of one store."""

    def __init__(self, cache: Cache, folder: Path) -> None:
        self._cache, self._folder = cache, folder

    def read(self, model: str, version: str, name: str) -> bytes | None:
        """A small file of a version, if it is here."""
        try:
            return (self._folder / model / version / name).read_bytes()
        except OSError:
            return None

    def put(self, model: str, version: str, name: str, data: bytes) -> None:
        """Keep a small file of a version."""
        self._cache._write(self._folder / model / version / name, data)  # noqa: SLF001  # its other half

    def cached_versions(self) -> CachedFile | None:
        """What the store had when it was last asked, by any process."""
        try:
            return msgspec.json.decode((self._folder / "versions.json").read_bytes(), type=CachedFile)
        except (OSError, msgspec.DecodeError):
            return None

    def keep_versions(self, seen: CachedFile) -> None:
        """Remember what the store has, and forget the versions that it has no more."""
        for model in self._folder.glob("*/"):
            for version in model.glob("*/"):
                if version.name not in seen.versions.get(model.name, ()):
                    shutil.rmtree(version, ignore_errors=True)
        self._cache._write(self._folder / "versions.json", msgspec.json.encode(seen))  # noqa: SLF001  # as above


def is_digest(digest: str, data: bytes) -> bool:
    """Whether bytes have this SHA-256 (hexadecimal)."""
    found = hashlib.sha256()
    for piece in chunks.chunks(data):
        found.update(piece)
    return hmac.compare_digest(found.hexdigest().encode(), digest.encode())
