"""The files below a URL, through fsspec: `s3://bucket/prefix`, `gs://...`, `az://...`.

An object appears whole, and replaces the one before it whole. Files are written to a temporary file first, so
that an upload that fails midway leaves nothing.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

from headrace.errors import HeadraceError, InvalidInput, SettingError
from headrace_worker.bulk.storage import FileFacts, storage_error

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

T = TypeVar("T")

#: Bytes of a read, and the blocks that an open file keeps: row groups are read by turns from many columns.
_BLOCK_BYTES, _MAX_BLOCKS = 2 * 1024**2, 24
#: What the kinds of storage call the mark of a content.
_MARKS = (
    "ETag",
    "etag",
    "generation",
    "md5Hash",
    "content_md5",
    "mtime",
    "LastModified",
    "last_modified",
    "created",
)


class ObjectStore:
    """The files below a URL. `name` is the name of its location, for messages: the URL may have a password."""

    def __init__(self, name: str, url: str) -> None:
        self._name, self._url = name, url
        self._files: AbstractFileSystem | None = None
        self._root = ""
        self._pid = os.getpid()

    def walk(self, path: str) -> Iterator[FileFacts]:
        """Yield the files below a folder, or the file of that path."""
        details = self._call(path, lambda files, full: files.find(full, detail=True))
        if not details:
            raise InvalidInput(f"there is no file or folder {self._title(path)}")
        for full_name, info in details.items():
            name = full_name.removeprefix(self._root).lstrip("/")
            inner = name.removeprefix(path).lstrip("/")
            is_hidden = any(folder.startswith((".", "_")) for folder in inner.split("/"))
            if info.get("type") == "file" and not is_hidden and not full_name.endswith("/"):
                yield _to_facts(name, info)

    def facts(self, path: str) -> FileFacts:
        """Return the facts of a file."""
        info = self._call(path, lambda files, full: files.info(full))
        if info.get("type") != "file":
            raise storage_error(self._title(path), IsADirectoryError())
        return _to_facts(path, info)

    @contextmanager
    def open(self, path: str) -> Iterator[tuple[BinaryIO, FileFacts]]:
        """Open a file to read."""
        facts = self.facts(path)
        opened = self._call(
            path,
            lambda files, full: files.open(
                full,
                "rb",
                block_size=_BLOCK_BYTES,
                cache_type="blockcache",
                cache_options={"maxblocks": _MAX_BLOCKS},
            ),
        )
        with opened:
            yield cast("BinaryIO", _RemoteFile(opened, self._title(path))), facts

    def has_content(self, file: BinaryIO, facts: FileFacts) -> bool:  # noqa: ARG002  # the name says which
        """Decide whether a file still has the content of these facts."""
        return self.facts(facts.path) == facts

    def read(self, path: str, max_bytes: int) -> bytes | None:
        """Return at most `max_bytes` + 1 bytes of a small file; None if there is no such file."""

        def read(files: AbstractFileSystem, full: str) -> bytes | None:
            try:
                info = files.info(full)
                if info.get("type") != "file":
                    return None
                size = min(info["size"], max_bytes + 1 if max_bytes else 0)
                return bytes(files.cat_file(full, start=0, end=size)) if size else b""
            except FileNotFoundError:
                return None

        return self._call(path, read)

    @contextmanager
    def write(self, path: str) -> Iterator[BinaryIO]:
        """Open a file to write. It appears under its name when the block ends without an exception, whole."""
        try:
            with tempfile.TemporaryFile() as temporary:  # it has no name, so a killed process leaves nothing
                yield cast("BinaryIO", temporary)
                temporary.flush()
                temporary.seek(0)
                source = f"/dev/fd/{temporary.fileno()}"
                self._call(path, lambda files, full: files.put_file(source, full))
        except OSError as error:
            raise storage_error(self._title(path), error) from None

    def create(self, path: str, data: bytes) -> bool:
        """Write a small file if there is none of that path. Return False if there is one."""

        def create(files: AbstractFileSystem, full: str) -> bool:
            if files.exists(full):
                return False
            try:
                files.pipe_file(full, data, mode="create")
            except FileExistsError:
                return False
            return True

        return self._call(path, create)

    def remove_unfinished(self, path: str) -> None:
        """Do nothing: an object that was not uploaded whole does not exist."""

    def _call(self, path: str, operation: Callable[[AbstractFileSystem, str], T]) -> T:
        if os.getpid() != self._pid:  # connections and threads do not survive a fork
            self._files, self._pid = None, os.getpid()
        if self._files is None:
            self._files, self._root = _connect(self._name, self._url)
        try:
            return operation(self._files, f"{self._root}/{path}" if path else self._root)
        except (MemoryError, HeadraceError):
            raise
        except Exception as error:  # each kind of storage has its own errors
            raise remote_error(self._title(path), error) from error

    def _title(self, path: str) -> str:
        return f"{self._name}:{path}"


class _RemoteFile:
    """An open file whose errors are those of this project, also where pyarrow reads it."""

    def __init__(self, opened: Any, title: str) -> None:
        self._opened, self._title = opened, title

    @property
    def closed(self) -> bool:
        return bool(self._opened.closed)

    def read(self, size: int = -1) -> bytes:
        try:
            return bytes(self._opened.read(size))
        except Exception as error:  # each kind of storage has its own errors
            raise remote_error(self._title, error) from error

    def seek(self, position: int, whence: int = 0) -> int:
        return int(self._opened.seek(position, whence))

    def tell(self) -> int:
        return int(self._opened.tell())

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self._opened.close()


def remote_error(title: str, error: Exception) -> HeadraceError:
    """Return the error to raise for one of a remote storage. What is not said to be final may pass."""
    if type(error).__name__ == "FileExpired":
        return InvalidInput(f"{title} has changed while it was read; start a new run with another name and output")
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError):
        return storage_error(title, error)
    return storage_error(title, error if isinstance(error, HeadraceError) else _Passing(_describe(error)))


class _Passing(Exception):  # never raised: it carries the text of an error that may pass
    pass


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _to_facts(path: str, info: dict[str, Any]) -> FileFacts:
    mark = next((str(info[name]) for name in _MARKS if info.get(name)), "")
    size = int(info.get("size") or 0)
    return FileFacts(path, size, f"{size}-{mark.strip(chr(34))}")


def _connect(name: str, url: str) -> tuple[AbstractFileSystem, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise SettingError(
            f"the location {name!r} is a URL: pip install 'headrace-worker[s3]', or fsspec and the package for "
            "such a URL"
        ) from None
    try:
        # A cached listing would hide that a file has changed.
        files, root = url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise SettingError(f"the location {name!r} cannot be used: {type(error).__name__}") from error
    return files, str(root).rstrip("/")
