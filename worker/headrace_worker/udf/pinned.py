"""Fix the version that a name stands for, so that all processes of an engine predict with the same bytes."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from headrace.catalog.aliases import Aliases, decode_aliases, is_version, read_aliases
from headrace.connection.commands import execute
from headrace.connection.connect import connect
from headrace.connection.errors import translate_errors
from headrace.errors import BrokerUnavailable, InvalidInput, ModelError
from headrace.wire.keys import Keys
from headrace.wire.names import check_model_name, split_version
from headrace_worker.manifest import Manifest
from headrace_worker.settings import WorkerSettings
from headrace_worker.store.store import Store

#: The variables that name a Redis.
_REDIS_VARIABLES = ("HEADRACE_REDIS_URL", "HEADRACE_REDIS_URL_FILE", "REDIS_URL", "REDIS_URL_FILE")
#: A user and a password in a URL. `abfs://container@account` holds no password.
_PASSWORD = re.compile(r"//[^/@\s]*:[^/@\s]*@")


class PinnedVersion(NamedTuple):
    """A version by reference: everything that a pickled Predictor holds of it. It contains no secret."""

    #: The absolute path or the URL of the store.
    store: str
    model: str
    #: A number as text.
    version: str
    #: The digest of the version's files and contract, see `digest_of`.
    digest: str

    @property
    def title(self) -> str:
        """The version as people write it: `churn@3`."""
        return f"{self.model}@{self.version}"

    def check(self, manifest: Manifest) -> None:
        """Raise ModelError if a process reads another version under this name than the one that was pinned."""
        if digest_of(manifest) != self.digest:
            raise ModelError(
                f"{self.title} in {Store(self.store).title} is another version than the one that the Predictor "
                "was made with; a version never changes: check that all machines read the same store"
            )


def pin_version(settings: WorkerSettings, name: str, environ: Mapping[str, str] = os.environ) -> PinnedVersion:
    """Return the version that `churn`, `churn@3` or `churn@production` stands for now.

    A name alone is the version that serves: that of the alias `production` if the environment names a Redis, else
    the newest of the store. Raises UnknownModel, ModelError, and BrokerUnavailable if the aliases cannot be read.
    """
    model, requested = split_version(name)
    store = Store.from_settings(settings, cached=True)
    newest = store.latest(check_model_name(model))
    version: str | None = requested
    if requested is None and not any(environ.get(variable) for variable in _REDIS_VARIABLES):
        version = newest
    elif requested is None or not is_version(requested):
        aliases = _read_aliases(settings, model, newest)
        version = aliases.serving if requested is None else aliases.resolve(requested, "")
    manifest = store.read_manifest(model, version or newest)
    return PinnedVersion(settings.models, model, manifest.version, digest_of(manifest))


def locate_store(location: str | os.PathLike[str]) -> str:
    """Return a store's location as every process of this machine can use it: an absolute path, or its URL.

    Raises InvalidInput for a URL with a password, as pickles and logs of engines would show it.
    """
    text = os.fspath(location)
    if _PASSWORD.search(text):
        raise InvalidInput(
            "the store's URL holds a password, and engines write what they send to other machines into logs and "
            "files; set the credentials in the environment of each machine instead, as AWS_ACCESS_KEY_ID"
        )
    if text.startswith("file://"):
        text = text.removeprefix("file://")
    return text if "://" in text else str(Path(text).absolute())


def digest_of(manifest: Manifest) -> str:
    """Return the SHA-256 of what a version predicts with: the digests of its files, and its contract."""
    files = (manifest.compiled, manifest.code)
    digests = [manifest.sha256, *(file.sha256 if file is not None else "" for file in files)]
    facts = (manifest.runtime, manifest.factory, digests, manifest.arguments, manifest.contract)
    return hashlib.sha256(msgspec.json.encode(facts)).hexdigest()


def _read_aliases(settings: WorkerSettings, model: str, newest: str) -> Aliases:
    try:
        with translate_errors(settings), connect(settings) as client:
            return decode_aliases(model, execute(client, read_aliases(Keys(settings.key_prefix), model)))
    except BrokerUnavailable as error:
        raise BrokerUnavailable(
            f"{error}; it knows the version of {model} that serves: name a version instead, as {model}@{newest}"
        ) from error
