"""The files below a location: the protocol that folders and object stores share, and its errors."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol

import msgspec

from headrace.errors import HeadraceError, InvalidInput, TransientError

#: Errors of the operating system after which the same call may succeed later.
_PASSING = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EAGAIN, errno.EINTR),
    *(errno.EMFILE, errno.ENFILE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EBUSY),
}


class FileFacts(msgspec.Struct, frozen=True):
    """A file below a location."""

    #: Its path below the location, with `/` between the folders.
    path: str
    #: Its size in bytes.
    size: int
    #: Identifies its content: the size, and the etag or the time of the last write.
    content: str


class Storage(Protocol):
    """The files below a location, by their paths there.

    Every method raises InvalidInput for a path that does not exist, that leads out of the location, or that may
    not be used, and TransientError if the storage does not answer or is full.
    """

    def walk(self, path: str) -> Iterator[FileFacts]:
        """Yield the files below a folder, or the file of that path, in no order.

        Files and folders whose names begin with `.` or `_` are left out.
        """
        ...

    def facts(self, path: str) -> FileFacts:
        """Return the facts of a file."""
        ...

    def open(self, path: str) -> AbstractContextManager[tuple[BinaryIO, FileFacts]]:
        """Open a file to read. The facts are those of the open file."""
        ...

    def has_content(self, file: BinaryIO, facts: FileFacts) -> bool:
        """Decide whether an open file still has the content of these facts."""
        ...

    def read(self, path: str, max_bytes: int) -> bytes | None:
        """Return at most `max_bytes` + 1 bytes of a small file; None if there is no such file."""
        ...

    def write(self, path: str) -> AbstractContextManager[BinaryIO]:
        """Open a file to write. It appears under its name when the block ends without an exception, whole."""
        ...

    def create(self, path: str, data: bytes) -> bool:
        """Write a small file if there is none of that path. Return False if there is one."""
        ...

    def remove_unfinished(self, path: str) -> None:
        """Remove what killed processes left of files that they wrote into this folder."""
        ...


def storage_error(title: str, error: Exception) -> HeadraceError:
    """Return the error to raise for one of a storage. `title` is the reference or location, for people."""
    if isinstance(error, HeadraceError):
        return error
    if isinstance(error, FileNotFoundError):
        return InvalidInput(f"there is no file or folder {title}")
    number = error.errno if isinstance(error, OSError) else None
    text = f"{type(error).__name__}: {' '.join(str(getattr(error, 'strerror', None) or error).split())[:200]}"
    if number in {errno.ENOSPC, errno.EDQUOT}:
        return TransientError(f"{title} cannot be written: no space is left there; free some")
    if isinstance(error, PermissionError) or number == errno.EROFS:
        return InvalidInput(f"{title}: the worker has no permission for it ({text})")
    if isinstance(error, IsADirectoryError | NotADirectoryError):
        return InvalidInput(f"{title}: a folder was expected where a file is, or a file where a folder is")
    if number is None or number in _PASSING:
        return TransientError(f"{title} is unavailable: {text}")
    return InvalidInput(f"{title} cannot be used: {text}")
