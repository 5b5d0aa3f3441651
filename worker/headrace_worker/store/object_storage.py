"""Files below a URL, through fsspec: `s3://bucket/prefix`, `gs://...`, `az://...`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from headrace.errors import HeadraceError, ModelError, StoreUnavailable

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

T = TypeVar("T")


class ObjectStorage:
    """Files by their path below a URL. Safe for many threads, and for processes forked from this one.

    Every method raises StoreUnavailable if the storage does not answer, and ModelError if nothing installed can
    open the URL.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        #: The URL without a password, for people.
        self.title = _without_password(url)
        self._files: AbstractFileSystem | None = None
        self._root = ""
        self._pid = os.getpid()

    def read(self, path: str, max_bytes: int) -> bytes:
        """Return at most `max_bytes` + 1 bytes of a file. Raises FileNotFoundError."""
        data: bytes = self._call(lambda files, root: files.cat_file(f"{root}/{path}", start=0, end=max_bytes + 1))
        return data

    def write(self, path: str, data: bytes) -> None:
        """Write a file. Raises ModelError if the bucket does not exist."""
        try:
            self._call(lambda files, root: files.pipe_file(f"{root}/{path}", data))
        except FileNotFoundError:
            raise self._no_bucket() from None

    def create(self, path: str, data: bytes) -> bool:
        """Write a file if there is none at that path. Return False if there is one."""
        try:
            self._call(lambda files, root: files.pipe_file(f"{root}/{path}", data, mode="create"))
        except FileExistsError:
            return False
        except FileNotFoundError:
            raise self._no_bucket() from None
        return True

    def list_sizes(self, path: str) -> dict[str, int]:
        """Return the size in bytes of each file below a path, by its own path, as the storage has them now."""

        def find(files: AbstractFileSystem, root: str) -> dict[str, int]:
            files.invalidate_cache()
            try:
                details = files.find(f"{root}/{path}" if path else root, detail=True)
            except FileNotFoundError:
                return {}
            return {name.removeprefix(root).lstrip("/"): detail["size"] or 0 for name, detail in details.items()}

        return self._call(find)

    def modified_at(self, path: str) -> datetime:
        """Return the time of the last write to a file."""
        time: datetime = self._call(lambda files, root: files.modified(f"{root}/{path}"))
        return time if time.tzinfo else time.replace(tzinfo=UTC)

    def delete(self, path: str) -> None:
        """Delete a file; another process may have deleted it already."""
        with suppress(FileNotFoundError):
            self._call(lambda files, root: files.rm_file(f"{root}/{path}"))

    def _call(self, operation: Callable[[AbstractFileSystem, str], T]) -> T:
        if os.getpid() != self._pid:  # connections and threads do not survive a fork
            self._files, self._pid = None, os.getpid()
        if self._files is None:
            self._files, self._root = _connect(self._url)
        try:
            return operation(self._files, self._root)
        except (FileNotFoundError, FileExistsError, MemoryError, HeadraceError):
            raise
        except Exception as error:  # each kind of storage has its own errors
            raise StoreUnavailable(f"the model store {self.title} is unavailable: {_describe(error)}") from error

    def _no_bucket(self) -> ModelError:
        return ModelError(f"the model store {self.title} does not exist; create the bucket first")


def _connect(url: str) -> tuple[AbstractFileSystem, str]:
    title = _without_password(url)
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise ModelError(
            f"the model store {title} is not a folder: pip install 'headrace-worker[s3]', or fsspec and the "
            "package it needs for such a URL"
        ) from None
    try:
        files, root = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ModelError(f"the model store {title} cannot be used: {_describe(error)}") from None
    return files, root.rstrip("/")


def _without_password(text: str) -> str:
    return re.sub(r"//[^/@\s]*@", "//", text)


def _describe(error: Exception) -> str:
    text = " ".join(_without_password(str(error)).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
