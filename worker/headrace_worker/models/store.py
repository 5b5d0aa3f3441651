"""The model store: a folder of immutable, numbered versions.

    <store>/<model>/<version>/manifest.json
                              artifact.skops, or .joblib, .onnx, .data
                              compiled.<runtime>, where its runtime made something of the artifact

A version is written into a folder of another name, made durable, and then renamed to its number in one
step: who reads the store sees all of a version or nothing. Two writers that want the same number meet at
the rename, which one of them loses and takes the next number.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
import shutil
import tempfile
from pathlib import Path

from headrace.errors import InvalidInput, ModelError, UnknownModel
from headrace.queues import check_model_name
from headrace_worker.models.manifest import Manifest, decode, encode

_VERSION = re.compile(r"[1-9][0-9]{0,8}")
_MANIFEST = "manifest.json"
#: Begins with a dot, so that it is neither a model's name nor a number.
_UNFINISHED = ".adding-"


class Store:
    """The versions in a folder. The folder need not exist until something is added."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def models(self) -> list[str]:
        """The names of the models that have a version, sorted."""
        return [name for name in _entries(self.path) if _is_model(name) and self.versions(name)]

    def versions(self, model: str) -> list[str]:
        """The versions of a model, oldest first; none for a model that is not there."""
        folder = self.path / check_model_name(model)
        return sorted((name for name in _entries(folder) if _VERSION.fullmatch(name)), key=int)

    def latest(self, model: str) -> str:
        """The newest version of a model. Raises UnknownModel."""
        versions = self.versions(model)
        if not versions:
            raise UnknownModel(self._unknown(model))
        return versions[-1]

    def read(self, model: str, version: str) -> Manifest:
        """The manifest of a version. Raises UnknownModel, or ModelError where it cannot be read."""
        folder = self._folder(model, version)
        title = f"{model}@{version}"
        manifest = decode(_bytes(folder / _MANIFEST, title), title)
        if (manifest.name, manifest.version) != (model, version):
            raise ModelError(f"the manifest of {title} is that of {manifest.title}; it was copied by hand")
        return manifest

    def artifact(self, model: str, version: str, *, max_bytes: int) -> bytes:
        """The artifact of a version, unverified. Raises ModelError for one over `max_bytes`."""
        manifest = self.read(model, version)
        return read_capped(self._folder(model, version) / manifest.artifact, manifest.title, max_bytes)

    def compiled(self, model: str, version: str, *, max_bytes: int) -> bytes:
        """What the runtime of a version made of its artifact, unverified. Raises ModelError as `artifact` does."""
        manifest = self.read(model, version)
        return read_capped(self._folder(model, version) / manifest.compiled_artifact, manifest.title, max_bytes)

    def add(self, manifest: Manifest, artifact: bytes, compiled: bytes | None = None) -> Manifest:
        """Store a version under the next free number, and return its manifest with that number."""
        folder = self.path / check_model_name(manifest.name)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=folder))
        except OSError as error:
            raise ModelError(f"the model store {self.path} cannot be written: {error.strerror}") from None
        try:
            _write(unfinished / manifest.artifact, artifact)
            if compiled is not None:
                _write(unfinished / manifest.compiled_artifact, compiled)
            return self._publish(manifest, unfinished, folder)
        except OSError as error:
            raise ModelError(f"{manifest.name} cannot be written to {self.path}: {error.strerror}") from None
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def _publish(self, manifest: Manifest, unfinished: Path, folder: Path) -> Manifest:
        unfinished.chmod(0o755)
        number = int(next(reversed(self.versions(manifest.name)), "0")) + 1
        while True:
            numbered = manifest.numbered(str(number))
            _write(unfinished / _MANIFEST, encode(numbered))
            _sync(unfinished)
            try:
                unfinished.rename(folder / str(number))
            except OSError as error:
                if error.errno not in {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}:
                    raise
                number += 1
            else:
                _sync(folder)
                return numbered

    def _folder(self, model: str, version: str) -> Path:
        known = self.versions(model)
        if not known:
            raise UnknownModel(self._unknown(model))
        if version not in known:
            shown = version[:64] if isinstance(version, str) else type(version).__name__
            raise UnknownModel(f"{model} has no version {shown!r}; it has {', '.join(known[-10:])}")
        return self.path / model / version

    def _unknown(self, model: str) -> str:
        models = self.models()
        near = difflib.get_close_matches(model, models, n=1)
        if near:
            return f"no model {model!r} in {self.path}; did you mean {near[0]!r}?"
        known = f"it has {', '.join(models[:10])}" if models else "it is empty; `headrace models add` adds one"
        return f"no model {model!r} in {self.path}; {known}"


def read_capped(path: Path, title: str, max_bytes: int) -> bytes:
    """The bytes of a file, once, if they are no more than `max_bytes`. Raises ModelError."""
    try:
        with path.open("rb") as file:
            # One byte more than allowed, whatever stat says: the file may grow, or be a pipe.
            data = file.read(max_bytes + 1) if os.fstat(file.fileno()).st_size <= max_bytes else b""
            size = max(len(data), os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise ModelError(f"{title} cannot be read: {path}: {error.strerror}") from None
    if size > max_bytes:
        raise ModelError(f"{title} takes {size:,} bytes, more than the {max_bytes:,} of HEADRACE_MAX_MODEL_BYTES")
    return data


def _entries(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208  # names are what is wanted, and this is asked often
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ModelError(f"the model store {folder} cannot be read: {error.strerror}") from None


def _is_model(name: str) -> bool:
    try:
        return check_model_name(name) == name
    except InvalidInput:
        return False


def _bytes(path: Path, title: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{title} cannot be read: {path}: {error.strerror}") from None


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
