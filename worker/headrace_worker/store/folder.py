"""A model store in a folder of this machine, or of a file system it has mounted.

    <folder>/<model>/<version>/manifest.json
                               artifact.skops ...

A version is written into a folder of another name, made durable, and then renamed to its number in one
step: who reads the store sees all of a version or nothing. Two writers that want the same number meet at
the rename, which one of them loses and takes the next number.
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
from headrace_worker.store.backend import NUMBER, Rest, Unfinished

#: They begin with a dot, so that they are neither a model's name nor a number.
_UNFINISHED, _REMOVED = ".adding-", ".removing-"
#: The number is taken; what a rename onto a folder that is not empty may say.
_TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}
#: A file system that is mounted from elsewhere and does not answer now.
_AWAY = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH}


class Folder:
    """The versions in a folder. It need not exist until something is added."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def title(self) -> str:
        """The path."""
        return str(self.path)

    def versions(self) -> dict[str, list[str]]:
        """The numbers there are, by model."""
        return {model: found for model in self._entries(self.path) if (found := self.numbers(model))}

    def numbers(self, model: str) -> list[str]:
        """The numbers of one model."""
        return [name for name in self._entries(self.path / model) if NUMBER.fullmatch(name)]

    def read(
        self,
        model: str,
        version: str,
        name: str,
        *,
        most: int,
        digest: str | None = None,  # noqa: ARG002  # the file itself is as near as anything else
        fresh: bool = False,  # noqa: ARG002  # nothing is remembered
    ) -> bytes:
        """A file of a version: no more than `most` bytes and one."""
        path = self.path / model / version / name
        try:
            return read_up_to(path, most)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _error(error, f"{model}@{version} cannot be read: {path}") from None

    def publish(self, model: str, artifacts: Mapping[str, bytes], rest: Rest) -> str:
        """Store a new version under the next number."""
        folder = self.path / model
        with _told(f"the model store {self.path} cannot be written"):
            folder.mkdir(parents=True, exist_ok=True)
            unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=folder))
        try:
            with _told(f"{model} cannot be written to {self.path}"):
                for name, data in artifacts.items():
                    _write(unfinished / name, data)
                unfinished.chmod(0o755)
                return self._number(model, unfinished, rest)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def _number(self, model: str, unfinished: Path, rest: Rest) -> str:
        number = max(map(int, self.numbers(model)), default=0) + 1
        while True:
            for name, data in rest(str(number)).items():
                _write(unfinished / name, data)
            _sync(unfinished)
            try:
                unfinished.rename(self.path / model / str(number))
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
                number += 1
            else:
                _sync(self.path / model)
                return str(number)

    def put(self, model: str, version: str, name: str, data: bytes) -> None:
        """Add a file to a version."""
        folder = self.path / model / version
        with _told(f"{folder} cannot be written to"):
            unfinished = folder / f"{_UNFINISHED}{os.getpid()}-{name}"
            _write(unfinished, data)
            unfinished.replace(folder / name)
            _sync(folder)

    def size(self, model: str, version: str) -> int:
        """Bytes a version takes."""
        return _size(self.path / model / version)

    def remove(self, model: str, version: str) -> None:
        """Remove a version."""
        folder = self.path / model
        with _told(f"{folder / version} cannot be removed"):
            aside = Path(tempfile.mkdtemp(prefix=_REMOVED, dir=folder))
            try:
                (folder / version).rename(aside / version)
            except FileNotFoundError:
                pass  # somebody else was quicker
            finally:
                shutil.rmtree(aside)

    def unfinished(self, before: datetime) -> list[Unfinished]:
        """What was begun before that moment and never became a version, or was not wholly removed."""
        found = []
        for model in self._entries(self.path):
            for name in self._entries(self.path / model):
                path = self.path / model / name
                if name.startswith((_UNFINISHED, _REMOVED)) and _changed(path) < before:
                    found.append(Unfinished(model=model, name=name, size=_size(path)))
        return found

    def clear(self, leftover: Unfinished) -> None:
        """Remove a leftover."""
        shutil.rmtree(self.path / leftover.model / leftover.name, ignore_errors=True)

    def _entries(self, folder: Path) -> list[str]:
        try:
            return sorted(os.listdir(folder))  # noqa: PTH208  # names are what is wanted, and this is asked often
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise _error(error, f"the model store {folder} cannot be read") from None


@contextmanager
def _told(problem: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _error(error, problem) from None


def read_capped(path: Path, title: str, max_bytes: int) -> bytes:
    """The bytes of a file, once, if they are no more than `max_bytes`. Raises ModelError."""
    try:
        data = read_up_to(path, max_bytes)
        size = max(len(data), path.stat().st_size) if len(data) > max_bytes else len(data)
    except OSError as error:
        raise ModelError(f"{title} cannot be read: {path}: {error.strerror}") from None
    check_size(size, title, max_bytes)
    return data


def check_size(size: int, title: str, max_bytes: int) -> None:
    """Raise ModelError for something larger than it may be."""
    if size > max_bytes:
        raise ModelError(f"{title} takes {size:,} bytes, more than the {max_bytes:,} of HEADRACE_MAX_MODEL_BYTES")


def read_up_to(path: Path, most: int) -> bytes:
    """The bytes of a file, `most` and one more at the most, whatever its size is said to be. Raises OSError."""
    with path.open("rb") as file:
        # The file may grow, or be a pipe.
        return chunks.read(file, most + 1)


def _error(error: OSError, problem: str) -> ModelError | StoreUnavailable:
    kind = StoreUnavailable if error.errno in _AWAY else ModelError
    return kind(f"{problem}: {error.strerror}")


def _changed(path: Path) -> datetime:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except OSError:
        return datetime.max.replace(tzinfo=UTC)  # it is gone by now


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
