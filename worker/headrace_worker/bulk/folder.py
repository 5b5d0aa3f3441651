"""The files of a local folder. No symbolic link below it is followed, not even if it appears between two calls.

A path is walked from the folder down, one directory at a time (`openat`, `O_NOFOLLOW`), so there is no moment
between a check and a use.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO
from uuid import uuid4

from headrace.errors import InvalidInput
from headrace_worker.bulk.storage import FileFacts, storage_error

#: The directories between a location and a file; more mean that directories contain each other.
_MAX_DEPTH = 32
#: The ending of a file that is being written. Its name begins with a dot, so no reader takes it for data.
_UNFINISHED = ".headrace-part"

#: Errors of a file system without hard links.
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: O_NONBLOCK: opening a named pipe would wait for its writer.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Folder:
    """The files below a local folder. `name` is the name of its location, for messages."""

    def __init__(self, name: str, root: str) -> None:
        self._name, self._root = name, root

    # --- reading

    def walk(self, path: str) -> Iterator[FileFacts]:
        """Yield the files below a folder, or the file of that path."""
        try:
            directory = self._open_directory(path)
        except NotADirectoryError:
            yield self.facts(path)
            return
        except OSError as error:
            raise storage_error(self._title(path), error) from None
        try:
            yield from self._walk(directory, path, path.count("/") + 1)
        finally:
            os.close(directory)

    def facts(self, path: str) -> FileFacts:
        """Return the facts of a file."""
        with self.open(path) as (_, facts):
            return facts

    @contextmanager
    def open(self, path: str) -> Iterator[tuple[BinaryIO, FileFacts]]:
        """Open a file to read."""
        try:
            descriptor = self._open_file(path)
        except OSError as error:
            raise storage_error(self._title(path), error) from None
        with os.fdopen(descriptor, "rb") as file:
            yield file, _to_facts(path, os.fstat(descriptor))

    def has_content(self, file: BinaryIO, facts: FileFacts) -> bool:
        """Decide whether an open file still has the content of these facts."""
        return _to_facts(facts.path, os.fstat(file.fileno())) == facts

    def read(self, path: str, max_bytes: int) -> bytes | None:
        """Return at most `max_bytes` + 1 bytes of a small file; None if there is no such file."""
        try:
            with os.fdopen(self._open_file(path), "rb") as file:
                return file.read(max_bytes + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error(self._title(path), error) from None

    def _walk(self, directory: int, path: str, depth: int) -> Iterator[FileFacts]:
        if depth > _MAX_DEPTH:
            raise InvalidInput(
                f"{self._title(path)} is more than {_MAX_DEPTH} folders deep; do folders loop there?"
            )
        try:
            names = sorted(os.listdir(directory))
        except OSError as error:
            raise storage_error(self._title(path), error) from None
        for name in names:
            if name.startswith((".", "_")):
                continue
            child = f"{path}/{name}" if path else name
            try:
                facts = os.stat(name, dir_fd=directory, follow_symlinks=False)
                if stat.S_ISLNK(facts.st_mode):
                    raise self._is_link(child)
                if not stat.S_ISDIR(facts.st_mode):
                    yield _to_facts(child, facts)
                    continue
                inner = os.open(name, _DIRECTORY, dir_fd=directory)
            except FileNotFoundError:  # removed since it was listed
                continue
            except OSError as error:
                raise storage_error(self._title(child), error) from None
            try:
                yield from self._walk(inner, child, depth + 1)
            finally:
                os.close(inner)

    # --- writing

    @contextmanager
    def write(self, path: str) -> Iterator[BinaryIO]:
        """Open a file to write. It appears under its name when the block ends without an exception, whole."""
        folder, _, name = path.rpartition("/")
        temporary = f".{name}.{uuid4().hex}{_UNFINISHED}"
        try:
            directory = self._open_directory(folder, create=True)
        except OSError as error:
            raise storage_error(self._title(path), error) from None
        try:
            _remove_unlocked(directory, f".{name}.")
            with os.fdopen(os.open(temporary, _NEW_FILE, 0o666, dir_fd=directory), "w+b") as file:
                with suppress(OSError):  # a file system without locks
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield file
                file.flush()
                os.fsync(file.fileno())
                os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
                os.fsync(directory)
        except BaseException as error:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=directory)
            if isinstance(error, OSError):
                raise storage_error(self._title(path), error) from None
            raise
        finally:
            os.close(directory)

    def create(self, path: str, data: bytes) -> bool:
        """Write a small file if there is none of that path. Return False if there is one."""
        folder, _, name = path.rpartition("/")
        temporary = f".{name}.{uuid4().hex}{_UNFINISHED}"
        try:
            directory = self._open_directory(folder, create=True)
            try:
                with os.fdopen(os.open(temporary, _NEW_FILE, 0o666, dir_fd=directory), "w+b") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                _link(directory, temporary, name)
                os.fsync(directory)
            except FileExistsError:
                return False
            finally:
                with suppress(OSError):
                    os.unlink(temporary, dir_fd=directory)
                os.close(directory)
        except OSError as error:
            raise storage_error(self._title(path), error) from None
        return True

    def remove_unfinished(self, path: str) -> None:
        """Remove what killed processes left of files that they wrote into this folder."""
        with suppress(OSError):
            directory = self._open_directory(path)
            try:
                _remove_unlocked(directory, ".")
            finally:
                os.close(directory)

    # --- paths

    def _open_directory(self, path: str, *, create: bool = False) -> int:
        """Open a directory below the folder. No link is followed on the way."""
        directory = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        walked = ""
        for name in path.split("/") if path else ():
            walked = f"{walked}/{name}" if walked else name
            try:
                if create:
                    with suppress(FileExistsError):
                        os.mkdir(name, dir_fd=directory)
                inner = self._open_below(directory, name, _DIRECTORY, walked)
            finally:
                os.close(directory)
            directory = inner
        return directory

    def _open_file(self, path: str) -> int:
        """Open a regular file below the folder."""
        folder, _, name = path.rpartition("/")
        directory = self._open_directory(folder)
        try:
            descriptor = self._open_below(directory, name, _FILE, path)
        finally:
            os.close(directory)
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode):
            return descriptor
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError
        raise InvalidInput(f"{self._title(path)} is a pipe, a device or a socket; a table is a file")

    def _open_below(self, directory: int, name: str, flags: int, path: str) -> int:
        try:
            return os.open(name, flags, dir_fd=directory)
        except OSError:
            with suppress(FileNotFoundError):
                if stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                    raise self._is_link(path) from None
            raise

    def _is_link(self, path: str) -> InvalidInput:
        return InvalidInput(
            f"{self._title(path)} is a symbolic link, and no link below a location is followed; name the file "
            "that it leads to, or make that a location of its own"
        )

    def _title(self, path: str) -> str:
        return f"{self._name}:{path}"


def _to_facts(path: str, facts: os.stat_result) -> FileFacts:
    return FileFacts(path, facts.st_size, f"{facts.st_size}-{facts.st_mtime_ns}")


def _link(directory: int, temporary: str, name: str) -> None:
    """Give a file its name. Unlike a rename, this replaces no file."""
    try:
        os.link(temporary, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.close(os.open(name, _NEW_FILE, 0o666, dir_fd=directory))  # reserves the name
        os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)


def _remove_unlocked(directory: int, prefix: str) -> None:
    """Remove unfinished files whose names begin with `prefix`, but for those that a process still writes."""
    for name in os.listdir(directory):
        if not (name.startswith(prefix) and name.endswith(_UNFINISHED)):
            continue
        with suppress(OSError):
            descriptor = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(name, dir_fd=directory)
            finally:
                os.close(descriptor)
