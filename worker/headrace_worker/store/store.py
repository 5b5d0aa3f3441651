"""The model store: immutable, numbered versions of models, in a folder or at a URL.

    <store>/<model>/<version>/manifest.json
                              artifact.skops, or .joblib, .onnx, .data, .lightgbm, .xgboost, .catboost
                              compiled.<runtime>    if the runtime compiled the artifact
                              code.zip              if the version brings modules of its own
                              signature.<key>       if the version was signed

A backend (`folder`, `remote`) holds the files. This module decides which of them may be used.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from headrace.errors import InvalidInput, ModelError, UnknownModel
from headrace.text import did_you_mean
from headrace.wire.names import check_model_name
from headrace_worker.manifest import CODE_FILE, Manifest, decode, encode
from headrace_worker.settings import WorkerSettings
from headrace_worker.store.backend import MANIFEST_NAME, StoreBackend, UnfinishedVersion
from headrace_worker.store.cache import Cache, has_digest
from headrace_worker.store.folder import FolderBackend, check_size
from headrace_worker.store.signing import Keyring, Signer, encode_signature, signature_name

#: The largest manifest and the largest signature, in bytes. They are read before anything about them is verified.
_MAX_MANIFEST_BYTES, _MAX_SIGNATURE_BYTES = 64 * 1024 * 1024, 4096


class Store:
    """The versions at a path or URL. A folder is created when the first version is added.

    `keyring` holds the keys whose signatures are accepted, `signer` signs added versions, and `cache` holds copies
    of files read from a URL. All methods raise StoreUnavailable if the storage does not answer.
    """

    def __init__(
        self,
        location: str | os.PathLike[str],
        *,
        keyring: Keyring | None = None,
        signer: Signer | None = None,
        cache: Cache | None = None,
    ) -> None:
        self._backend = _open_backend(location, cache)
        self._keyring, self._signer = keyring or Keyring(), signer

    @classmethod
    def from_settings(
        cls, settings: WorkerSettings, *, signer: Signer | None = None, cached: bool = False
    ) -> Store:
        """Return the store that the settings name, with their keys. Raises SettingError.

        With `cached`, files from a URL are cached, so that a worker can continue while the store is unavailable.
        """
        return cls(
            settings.models,
            keyring=Keyring.parse(settings.model_keys, required=settings.require_signature),
            signer=signer,
            cache=Cache(_cache_folder(settings), max_bytes=settings.model_cache_bytes) if cached else None,
        )

    @property
    def title(self) -> str:
        """The path or URL, for people. It contains no password."""
        return self._backend.title

    @property
    def path(self) -> Path:
        """The store's folder. Raises ModelError for a store at a URL."""
        if not isinstance(self._backend, FolderBackend):
            raise ModelError(f"the model store {self.title} is not a folder")
        return self._backend.path

    def models(self) -> list[str]:
        """Return the names of the models that have a version, sorted."""
        return sorted(name for name, numbers in self._backend.versions().items() if numbers and _is_model(name))

    def versions(self, model: str) -> list[str]:
        """Return the versions of a model, oldest first; empty for a model that does not exist."""
        check_model_name(model)
        if isinstance(self._backend, FolderBackend):  # reads one folder instead of all
            return sorted(self._backend.numbers(model), key=int)
        return sorted(self._backend.versions().get(model, ()), key=int)

    def latest(self, model: str) -> str:
        """Return the newest version of a model. Raises UnknownModel."""
        versions = self.versions(model)
        if not versions:
            raise UnknownModel(self._unknown_model(model))
        return versions[-1]

    def read_manifest(self, model: str, version: str) -> Manifest:
        """Return the manifest of a version. Raises UnknownModel, or ModelError if the version must not serve."""
        self._check_exists(model, version)
        try:
            return self._read_manifest(model, version, fresh=False)
        except ModelError:
            return self._read_manifest(model, version, fresh=True)  # only the cached copy may be damaged

    def _read_manifest(self, model: str, version: str, *, fresh: bool) -> Manifest:
        title = f"{model}@{version}"
        data = self._manifest_bytes(model, version, fresh=fresh)

        def read_signature(name: str) -> bytes | None:
            try:
                return self._backend.read(model, version, name, max_bytes=_MAX_SIGNATURE_BYTES, fresh=fresh)
            except FileNotFoundError:
                return None

        self._keyring.check(data, title, read_signature)
        manifest = decode(data, title)
        if (manifest.name, manifest.version) != (model, version):
            raise ModelError(f"the manifest of {title} names {manifest.title}; the version was copied by hand")
        return manifest

    def _manifest_bytes(self, model: str, version: str, *, fresh: bool) -> bytes:
        title = f"{model}@{version}"
        try:
            data = self._backend.read(model, version, MANIFEST_NAME, max_bytes=_MAX_MANIFEST_BYTES, fresh=fresh)
        except FileNotFoundError:
            raise ModelError(f"{title} cannot be read: {MANIFEST_NAME}: No such file or directory") from None
        if len(data) > _MAX_MANIFEST_BYTES:
            raise ModelError(f"the manifest of {title} takes more than {_MAX_MANIFEST_BYTES:,} bytes")
        return data

    def read_artifact(self, model: str, version: str, *, max_bytes: int) -> bytes:
        """Return the artifact of a version, not verified. Raises ModelError if it exceeds `max_bytes`."""
        manifest = self.read_manifest(model, version)
        return self._read_file(manifest, manifest.artifact, manifest.sha256, manifest.size, max_bytes)

    def read_compiled(self, model: str, version: str, *, max_bytes: int) -> bytes:
        """Return the compiled artifact of a version, not verified. Raises ModelError as `read_artifact` does."""
        manifest = self.read_manifest(model, version)
        compiled = manifest.compiled
        if compiled is None:
            raise ModelError(f"{manifest.title} has no compiled artifact")
        return self._read_file(manifest, manifest.compiled_artifact, compiled.sha256, compiled.size, max_bytes)

    def read_code(self, model: str, version: str, *, max_bytes: int) -> bytes:
        """Return the archive of a version's modules, not verified. Raises ModelError as `read_artifact` does."""
        manifest = self.read_manifest(model, version)
        code = manifest.code
        if code is None:
            raise ModelError(f"{manifest.title} brings no modules")
        return self._read_file(manifest, CODE_FILE, code.sha256, code.size, max_bytes)

    def verify(self, model: str, version: str, *, max_bytes: int) -> Manifest:
        """Compare all files of a version with its manifest, and return the manifest. Raises ModelError."""
        manifest = self.read_manifest(model, version)
        check_digest(manifest.title, self.read_artifact(model, version, max_bytes=max_bytes), manifest.sha256)
        if manifest.compiled is not None:
            compiled = self.read_compiled(model, version, max_bytes=max_bytes)
            check_digest(manifest.title, compiled, manifest.compiled.sha256)
        if manifest.code is not None:
            check_digest(manifest.title, self.read_code(model, version, max_bytes=max_bytes), manifest.code.sha256)
        return manifest

    def _read_file(self, manifest: Manifest, name: str, digest: str, size: int, max_bytes: int) -> bytes:
        title = manifest.title
        check_size(size, title, max_bytes)
        try:
            data = self._backend.read(manifest.name, manifest.version, name, max_bytes=max_bytes, digest=digest)
        except FileNotFoundError:
            raise ModelError(f"{title} cannot be read: {name}: No such file or directory") from None
        check_size(len(data), title, max_bytes)
        return data

    def add(
        self, manifest: Manifest, artifact: bytes, compiled: bytes | None = None, code: bytes = b""
    ) -> Manifest:
        """Store a version under the next number, and return its manifest with that number."""
        check_model_name(manifest.name)
        artifacts = {manifest.artifact: artifact}
        if compiled is not None:
            artifacts[manifest.compiled_artifact] = compiled
        if manifest.code is not None:
            artifacts[CODE_FILE] = code

        def small_files(version: str) -> Mapping[str, bytes]:
            data = encode(manifest.with_version(version))
            if self._signer is None:
                return {MANIFEST_NAME: data}
            signature = encode_signature(self._signer.sign(data))
            return {signature_name(self._signer.id): signature, MANIFEST_NAME: data}

        return manifest.with_version(self._backend.publish(manifest.name, artifacts, small_files))

    def sign(self, model: str, version: str, signer: Signer, *, max_bytes: int) -> Manifest:
        """Sign a stored version whose files match its manifest. Raises ModelError."""
        manifest = self.verify(model, version, max_bytes=max_bytes)
        data = self._manifest_bytes(model, version, fresh=True)
        if decode(data, manifest.title) != manifest:
            raise ModelError(f"the manifest of {manifest.title} changed while it was read")
        self._backend.put(model, version, signature_name(signer.id), encode_signature(signer.sign(data)))
        return manifest

    def size(self, model: str, version: str) -> int:
        """Return the total size of a version's files, in bytes."""
        return self._backend.size(model, version)

    def remove(self, model: str, version: str) -> None:
        """Remove a version for good. Raises UnknownModel."""
        self._check_exists(model, version)
        self._backend.remove(model, version)

    def list_unfinished(self, before: datetime) -> list[UnfinishedVersion]:
        """Return the versions that were never finished and were last written before that time."""
        return [item for item in self._backend.list_unfinished(before) if _is_model(item.model)]

    def remove_unfinished(self, unfinished: UnfinishedVersion) -> None:
        """Remove the files of a version that was never finished."""
        self._backend.remove_unfinished(unfinished)

    def _check_exists(self, model: str, version: str) -> None:
        versions = self.versions(model)
        if not versions:
            raise UnknownModel(self._unknown_model(model))
        if version not in versions:
            shown = version[:64] if isinstance(version, str) else type(version).__name__
            raise UnknownModel(f"{model} has no version {shown!r}; it has {', '.join(versions[-10:])}")

    def _unknown_model(self, model: str) -> str:
        models = self.models()
        if hint := did_you_mean(model, models):
            return f"no model {model!r} in {self.title}{hint}"
        content = f"it has {', '.join(models[:10])}" if models else "it is empty; `headrace models add` adds one"
        return f"no model {model!r} in {self.title}; {content}"


def check_digest(title: str, data: bytes, digest: str) -> None:
    """Raise ModelError if the SHA-256 of a version's file is not the one in its manifest."""
    if not has_digest(data, digest):
        raise ModelError(
            f"{title} has another digest than its manifest says (not {digest[:12]}...); "
            "the file was changed or damaged, add the model again"
        )


def _open_backend(location: str | os.PathLike[str], cache: Cache | None) -> StoreBackend:
    text = os.fspath(location)
    if text.startswith("file://"):
        return FolderBackend(Path(text.removeprefix("file://")))
    if "://" not in text:
        return FolderBackend(Path(text))
    from headrace_worker.store.remote import RemoteBackend

    return RemoteBackend(text, cache)


def _cache_folder(settings: WorkerSettings) -> Path:
    if settings.model_cache:
        return Path(settings.model_cache)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headrace" / "models"


def _is_model(name: str) -> bool:
    try:
        return check_model_name(name) == name
    except InvalidInput:
        return False
