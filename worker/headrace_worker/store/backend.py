"""The protocol of a store's backend, which holds files by model, version and name and does not interpret them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Protocol

import msgspec

#: Returns the small files of a version by name, in the order to write them. Its argument is the version's number.
SmallFiles = Callable[[str], Mapping[str, bytes]]

#: A version exists if and only if it has this file: the last one written and the first one removed.
MANIFEST_NAME = "manifest.json"

#: The number of a version, which is also the name of its folder.
VERSION_NUMBER = re.compile(r"[1-9][0-9]{0,8}")


class UnfinishedVersion(msgspec.Struct, frozen=True, kw_only=True):
    """The files of a version whose writer never finished, or that was not removed completely."""

    model: str
    #: The name of its folder within the model's folder.
    name: str
    #: Total size of its files, in bytes.
    size: int


class StoreBackend(Protocol):
    """Files of versions, by model, version number and file name.

    Every method raises StoreUnavailable if the storage does not answer, and ModelError if it cannot be read or
    written.
    """

    @property
    def title(self) -> str:
        """The location, for people. It contains no password."""

    def versions(self) -> Mapping[str, list[str]]:
        """Return the version numbers of each model, unsorted.

        A cached backend whose storage is unavailable returns the numbers it last saw.
        """

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
        """Return at most `max_bytes` + 1 bytes of a file: the additional byte shows that the file is too large.

        `digest` is the file's expected SHA-256; a cached file with that digest may be returned. `fresh` bypasses
        the cache. Raises FileNotFoundError.
        """

    def publish(self, model: str, artifacts: Mapping[str, bytes], small_files: SmallFiles) -> str:
        """Store a version under the next free number and return that number. Readers see all of it or nothing.

        `artifacts` are its large files by name. `small_files` returns the others once the number is known.
        """

    def put(self, model: str, version: str, name: str, data: bytes) -> None:
        """Add a file to a version."""

    def size(self, model: str, version: str) -> int:
        """Return the total size of a version's files, in bytes."""

    def remove(self, model: str, version: str) -> None:
        """Remove a version. It stops being visible before its files are removed."""

    def list_unfinished(self, before: datetime) -> list[UnfinishedVersion]:
        """Return the unfinished versions that were last written before that time."""

    def remove_unfinished(self, unfinished: UnfinishedVersion) -> None:
        """Remove the files of an unfinished version."""
