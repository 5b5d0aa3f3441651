"""The model store: immutable, numbered versions of models, in a folder or at a URL.

    <store>/<model>/<version>/manifest.json
                              artifact.skops, or .joblib, .onnx, .data
                              compiled.<runtime>    where its runtime made something of the artifact
                              signature.<key>       where it was signed

Where its files are is a `Folder`'s or a `Remote`'s business; which of them may be used is decided here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from headrace.errors import InvalidInput, ModelError, UnknownModel
from headrace.text import did_you_mean
from headrace.wire.keys import check_model_name
from headrace_worker.manifest import Manifest, decode, encode
from headrace_worker.settings import WorkerSettings
from headrace_worker.store.backend import MANIFEST, StoreBackend, Unfinished
from headrace_worker.store.cache import Cache, is_digest
from headrace_worker.store.folder import Folder, check_size
from headrace_worker.store.signing import Keyring, Signer, signature_name, written

#: Bytes a manifest may take, and a signature: they are read before anything is known of them.
_MOST_MANIFEST, _MOST_SIGNATURE = 64 * 1024 * 1024, 4096


class Store:
    """The versions at a path or URL. It need not exist until something is added.

    `keyring` says whose signatures count, `signer` signs what is added, `cache` keeps what is read of a URL. All
    methods raise StoreUnavailable where the store is away.
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
        """The store of the settings, with their keys. Raises SettingError.

        `cached` is for what serves: it goes on with what it has read where the store is away.
        """
        return cls(
            settings.models,
            keyring=Keyring.parse(settings.model_keys, required=settings.require_signature),
            signer=signer,
            cache=Cache(_cache_folder(settings), max_bytes=settings.model_cache_bytes) if cached else None,
        )

    @property
    def title(self) -> str:
        """Where it is, for people."""
        return self._backend.title

    @property
    def path(self) -> Path:
        """The folder. Raises ModelError for a store that is none."""
        if not isinstance(self._backend, Folder):
            raise ModelError(f"the model store {self.title} is no folder")
        return self._backend.path

    def models(self) -> list[str]:
        """The names of the models that have a version, sorted."""
        return sorted(name for name, numbers in self._backend.versions().items() if numbers and _is_model(name))

    def versions(self, model: str) -> list[str]:
        """The versions of a model, oldest first; none for a model that is not there."""
        check_model_name(model)
        if isinstance(self._backend, Folder):  # one folder is looked at, not all
            return sorted(self._backend.numbers(model), key=int)
        return sorted(self._backend.versions().get(model, ()), key=int)

    def latest(self, model: str) -> str:
        """The newest version of a model. Raises UnknownModel."""
        versions = self.versions(model)
        if not versions:
            raise UnknownModel(self._unknown(model))
        return versions[-1]

    def read_manifest(self, model: str, version: str) -> Manifest:
        """The manifest of a version. Raises UnknownModel, or ModelError where it must not serve."""
        self._check_known(model, version)
        try:
            return self._read(model, version, fresh=False)
        except ModelError:
            return self._read(model, version, fresh=True)  # what was remembered of it may be what is damaged

    def _read(self, model: str, version: str, *, fresh: bool) -> Manifest:
        title = f"{model}@{version}"
        data = self._manifest(model, version, fresh=fresh)

        def beside(name: str) -> bytes | None:
            try:
                return self._backend.read(model, version, name, most=_MOST_SIGNATURE, fresh=fresh)
            except FileNotFoundError:
                return None

        self._keyring.check(data, title, beside)
        manifest = decode(data, title)
        if (manifest.name, manifest.version) != (model, version):
            raise ModelError(f"the manifest of {title} is that of {manifest.title}; it was copied by hand")
        return manifest

    def _manifest(self, model: str, version: str, *, fresh: bool) -> bytes:
        title = f"{model}@{version}"
        try:
            data = self._backend.read(model, version, MANIFEST, most=_MOST_MANIFEST, fresh=fresh)
        except FileNotFoundError:
            raise ModelError(f"{title} cannot be read: {MANIFEST}: No such file or directory") from None
        if len(data) > _MOST_MANIFEST:
            raise ModelError(f"the manifest of {title} takes more than {_MOST_MANIFEST:,} bytes")
        return data

    def read_artifact(self, model: str, version: str, *, max_bytes: int) -> bytes:
        """The artifact of a version, unverified. Raises ModelError for one over `max_bytes`."""
        manifest = self.read_manifest(model, version)
        return self._file(manifest, manifest.artifact, manifest.sha256, manifest.size, max_bytes)

    def read_compiled(self, model: str, version: str, *, max_bytes: int) -> bytes:
        """What the runtime of a version made of its artifact, unverified. Raises ModelError as `artifact` does."""
        manifest = self.read_manifest(model, version)
        made = manifest.compiled
        if made is None:
            raise ModelError(f"{manifest.title} has nothing but its artifact")
        return self._file(manifest, manifest.compiled_artifact, made.sha256, made.size, max_bytes)

    def verify(self, model: str, version: str, *, max_bytes: int) -> Manifest:
        """The manifest of a version all of whose files are those it tells of. Raises ModelError."""
        manifest = self.read_manifest(model, version)
        check_digest(manifest.title, self.read_artifact(model, version, max_bytes=max_bytes), manifest.sha256)
        if manifest.compiled is not None:
            made = self.read_compiled(model, version, max_bytes=max_bytes)
            check_digest(manifest.title, made, manifest.compiled.sha256)
        return manifest

    def _file(self, manifest: Manifest, name: str, digest: str, size: int, max_bytes: int) -> bytes:
        title = manifest.title
        check_size(size, title, max_bytes)
        try:
            data = self._backend.read(manifest.name, manifest.version, name, most=max_bytes, digest=digest)
        except FileNotFoundError:
            raise ModelError(f"{title} cannot be read: {name}: No such file or directory") from None
        check_size(len(data), title, max_bytes)
        return data

    def add(self, manifest: Manifest, artifact: bytes, compiled: bytes | None = None) -> Manifest:
        """Store a version under the next number, and return its manifest with that number."""
        check_model_name(manifest.name)
        artifacts = {manifest.artifact: artifact}
        if compiled is not None:
            artifacts[manifest.compiled_artifact] = compiled

        def rest(version: str) -> Mapping[str, bytes]:
            data = encode(manifest.with_version(version))
            signed = {signature_name(self._signer.id): written(self._signer.sign(data))} if self._signer else {}
            return {**signed, MANIFEST: data}

        return manifest.with_version(self._backend.publish(manifest.name, artifacts, rest))

    def sign(self, model: str, version: str, signer: Signer, *, max_bytes: int) -> Manifest:
        """Sign a version that is there, once all of its files are found to be its own. Raises ModelError."""
        manifest = self.verify(model, version, max_bytes=max_bytes)
        data = self._manifest(model, version, fresh=True)
        if decode(data, manifest.title) != manifest:
            raise ModelError(f"the manifest of {manifest.title} changes while it is read")
        self._backend.put(model, version, signature_name(signer.id), written(signer.sign(data)))
        return manifest

    def size(self, model: str, version: str) -> int:
        """Bytes a version takes."""
        return self._backend.size(model, version)

    def remove(self, model: str, version: str) -> None:
        """Remove a version for good. Raises UnknownModel."""
        self._check_known(model, version)
        self._backend.remove(model, version)

    def list_unfinished(self, before: datetime) -> list[Unfinished]:
        """What was begun before that moment and never became a version."""
        return [one for one in self._backend.unfinished(before) if _is_model(one.model)]

    def remove_unfinished(self, leftover: Unfinished) -> None:
        """Remove a leftover."""
        self._backend.clear(leftover)

    def _check_known(self, model: str, version: str) -> None:
        known = self.versions(model)
        if not known:
            raise UnknownModel(self._unknown(model))
        if version not in known:
            shown = version[:64] if isinstance(version, str) else type(version).__name__
            raise UnknownModel(f"{model} has no version {shown!r}; it has {', '.join(known[-10:])}")

    def _unknown(self, model: str) -> str:
        models = self.models()
        if hint := did_you_mean(model, models):
            return f"no model {model!r} in {self.title}{hint}"
        known = f"it has {', '.join(models[:10])}" if models else "it is empty; `headrace models add` adds one"
        return f"no model {model!r} in {self.title}; {known}"


def check_digest(title: str, data: bytes, digest: str) -> None:
    """Raise ModelError for bytes of a version that have not the SHA-256 its manifest tells."""
    if not is_digest(digest, data):
        raise ModelError(
            f"{title} has another digest than its manifest says (not {digest[:12]}...); "
            "the file was changed or damaged, add the model again"
        )


def _open_backend(at: str | os.PathLike[str], cache: Cache | None) -> StoreBackend:
    text = os.fspath(at)
    if text.startswith("file://"):
        return Folder(Path(text.removeprefix("file://")))
    if "://" not in text:
        return Folder(Path(text))
    from headrace_worker.store.remote import Remote

    return Remote(text, cache)


def _cache_folder(settings: WorkerSettings) -> Path:
    if settings.model_cache:
        return Path(settings.model_cache)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headrace" / "models"


def _is_model(name: str) -> bool:
    try:
        return check_model_name(name) == name
    except InvalidInput:
        return False
