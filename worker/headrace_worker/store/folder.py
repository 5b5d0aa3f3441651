"""The backend for a folder of this machine, or of a file system it has mounted.

    <folder>/<model>/<version>/manifest.json
                               artifact.skops ...

A version is written into a temporary folder, flushed to disk, and then renamed to its number in one step, so
readers see all of a version or nothing. If two writers want the same number, the rename of one fails and that
writer takes the next number.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from headrace.errors import ModelError, StoreUnavailable
from headrace_worker.store import chunks
from headrace_worker.store.backend import VERSION_NUMBER, SmallFiles, UnfinishedVersion

#: Prefixes of temporary folders. The dot keeps them apart from names of models and from version numbers.
_ADDING, _REMOVING = ".adding-", ".removing-"
#: Errors of a rename onto a folder that is not empty: the number is in use.
_NUMBER_IN_USE = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}
#: Errors of a mounted file system that does not answer at the moment.
_UNAVAILABLE = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH}


class FolderBackend:
    """The versions in a folder, which is created when the first version is added."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def title(self) -> str:
        """The path."""
        return str(self.path)

    def versions(self) -> dict[str, list[str]]:
        """Return the version numbers of each model that has a version."""
        return {model: numbers for model in self._entries(self.path) if (numbers := self.numbers(model))}

    def numbers(self, model: str) -> list[str]:
        """Return the version numbers of one model."""
        return [name for name in self._entries(self.path / model) if VERSION_NUMBER.fullmatch(name)]

    def read(
        self,
        model: str,
        version: str,
        name: str,
        *,
        max_bytes: int,
        digest: str | None = None,  # noqa: ARG002  # a folder has no cache
        fresh: bool = False,  # noqa: ARG002  # a folder has no cache
    ) -> bytes:
        """Return at most `max_bytes` + 1 bytes of a file."""
        path = self.path / model / version / name
        try:
            return read_up_to(path, max_bytes)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _translated(error, f"{model}@{version} cannot be read: {path}") from None

    def publish(self, model: str, artifacts: Mapping[str, bytes], small_files: SmallFiles) -> str:
        """Store a version under the next free number and return that number."""
        folder = self.path / model
        with _translate_errors(f"the model store {self.path} cannot be written"):
            folder.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=_ADDING, dir=folder))
        try:
            with _translate_errors(f"{model} cannot be written to {self.path}"):
                for name, data in artifacts.items():
                    _write(temporary / name, data)
                temporary.chmod(0o755)
                return self._rename_to_next_number(model, temporary, small_files)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _rename_to_next_number(self, model: str, temporary: Path, small_files: SmallFiles) -> str:
        number = max(map(int, self.numbers(model)), default=0) + 1
        while True:
            for name, data in small_files(str(number)).items():
                _write(temporary / name, data)
            _sync_folder(temporary)
            try:
                temporary.rename(self.path / model / str(number))
            except OSError as error:
                if error.errno not in _NUMBER_IN_USE:
                    raise
                number += 1
            else:
                _sync_folder(self.path / model)
                return str(number)

    def put(self, model: str, version: str, name: str, data: bytes) -> None:
        """Add a file to a version."""
        folder = self.path / model / version
        with _translate_errors(f"{folder} cannot be written to"):
            temporary = folder / f"{_ADDING}{os.getpid()}-{name}"
            _write(temporary, data)
            temporary.replace(folder / name)
            _sync_folder(folder)

    def size(self, model: str, version: str) -> int:
        """Return the total size of a version's files, in bytes."""
        return _folder_size(self.path / model / version)

    def remove(self, model: str, version: str) -> None:
        """Remove a version."""
        folder = self.path / model
        with _translate_errors(f"{folder / version} cannot be removed"):
            temporary = Path(tempfile.mkdtemp(prefix=_REMOVING, dir=folder))
            try:
                (folder / version).rename(temporary / version)
            except FileNotFoundError:
                pass  # another process has removed it
            finally:
                shutil.rmtree(temporary)

    def list_unfinished(self, before: datetime) -> list[UnfinishedVersion]:
        """Return the temporary folders that were last changed before that time."""
        unfinished = []
        for model in self._entries(self.path):
            for name in self._entries(self.path / model):
                path = self.path / model / name
                if name.startswith((_ADDING, _REMOVING)) and _modified_at(path) < before:
                    unfinished.append(UnfinishedVersion(model=model, name=name, size=_folder_size(path)))
        return unfinished

    def remove_unfinished(self, unfinished: UnfinishedVersion) -> None:
        """Remove a temporary folder."""
        shutil.rmtree(self.path / unfinished.model / unfinished.name, ignore_errors=True)

    def _entries(self, folder: Path) -> list[str]:
        try:
            return sorted(os.listdir(folder))  # noqa: PTH208  # called often, and only names are needed
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise _translated(error, f"the model store {folder} cannot be read") from None


def read_capped(path: Path, title: str, max_bytes: int) -> bytes:
    """Return the content of a file. Raises ModelError if it cannot be read or is larger than `max_bytes`."""
    try:
        data = read_up_to(path, max_bytes)
        size = max(len(data), path.stat().st_size) if len(data) > max_bytes else len(data)
    except OSError as error:
        raise ModelError(f"{title} cannot be read: {path}: {error.strerror}") from None
    check_size(size, title, max_bytes)
    return data


def check_size(size: int, title: str, max_bytes: int) -> None:
    """Raise ModelError if a size in bytes exceeds the limit."""
    if size > max_bytes:
        raise ModelError(f"{title} takes {size:,} bytes, more than the {max_bytes:,} of HEADRACE_MAX_MODEL_BYTES")


def read_up_to(path: Path, max_bytes: int) -> bytes:
    """Return at most `max_bytes` + 1 bytes of a file. Raises OSError.

    The size the file system reports is not used: the file may grow, or be a pipe.
    """
    with path.open("rb") as file:
        return chunks.read(file, max_bytes + 1)


@contextmanager
def _translate_errors(problem: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _translated(error, problem) from None


def _translated(error: OSError, problem: str) -> ModelError | StoreUnavailable:
    kind = StoreUnavailable if error.errno in _UNAVAILABLE else ModelError
    return kind(f"{problem}: {error.strerror}")


def _modified_at(path: Path) -> datetime:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except OSError:
        return datetime.max.replace(tzinfo=UTC)  # it has been removed since


def _folder_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
