"""Where a model store is: a folder, or something remote. What both can do, without knowing what a model is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Protocol

import msgspec

#: The small files of a version, by name, for the number it has got; in the order they are to be written.
Rest = Callable[[str], Mapping[str, bytes]]

#: The file without which a version is not there; so it is the last to be written, and the first to be removed.
MANIFEST = "manifest.json"

#: A version's number, as the name of its folder.
NUMBER = re.compile(r"[1-9][0-9]{0,8}")


class Unfinished(msgspec.Struct, frozen=True, kw_only=True):
    """What a version that was never finished left behind."""

    model: str
    #: Its name in the model's folder.
    name: str
    #: Bytes it takes.
    size: int


class StoreBackend(Protocol):
    """Files of versions, by model, number and name.

    Every method raises StoreUnavailable where the place is away, ModelError where it cannot be read or written.
    """

    @property
    def title(self) -> str:
        """Where it is, for people: without a password."""

    def versions(self) -> Mapping[str, list[str]]:
        """The numbers there are, by model, in no order. Of a place that is away, those that were there last."""

    def read(
        self, model: str, version: str, name: str, *, most: int, digest: str | None = None, fresh: bool = False
    ) -> bytes:
        """A file of a version: no more than `most` bytes and one. Raises FileNotFoundError.

        What has the SHA-256 `digest` may come from elsewhere. With `fresh`, nothing remembered is trusted.
        """

    def publish(self, model: str, artifacts: Mapping[str, bytes], rest: Rest) -> str:
        """Store a new version under the next number, which is returned. It is there as a whole or not at all.

        `artifacts` are its large files, by name; `rest` gives the others once the number is known.
        """

    def put(self, model: str, version: str, name: str, data: bytes) -> None:
        """Add a file to a version."""

    def size(self, model: str, version: str) -> int:
        """Bytes a version takes."""

    def remove(self, model: str, version: str) -> None:
        """Remove a version. It is gone as a whole before its parts are."""

    def unfinished(self, before: datetime) -> list[Unfinished]:
        """What was begun before that moment and never became a version."""

    def clear(self, leftover: Unfinished) -> None:
        """Remove a leftover."""
