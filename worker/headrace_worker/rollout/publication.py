"""Publish contracts from the store without a worker, so that producers can check jobs before any worker has run.

A worker publishes the contract of each version it serves. Where workers are started by the backlog, from zero, no
worker runs before there is a job.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
import redis

from headrace.catalog.aliases import Aliases, decode_aliases, read_aliases
from headrace.catalog.published import publish_contract, version_order
from headrace.connection.commands import execute
from headrace.connection.errors import is_wrong_type
from headrace.errors import ModelError, UnknownModel
from headrace.wire.keys import Keys
from headrace_worker.manifest import Manifest
from headrace_worker.store.store import Store


class Publication(msgspec.Struct, frozen=True, kw_only=True):
    """The result for one version of a model, or for a model without a version that may serve."""

    model: str
    version: str | None
    #: The reason why its contract was not published; "" if it was.
    problem: str = ""


def publish_contracts(
    client: redis.Redis, keys: Keys, store: Store, models: Iterable[str]
) -> Iterator[Publication]:
    """Publish the contracts of the versions that a worker would serve: those of aliases, else the newest.

    Only manifests are read, and signatures checked; whether a version can be loaded, a worker finds out. Raises
    redis.RedisError and StoreUnavailable.
    """
    for model in models:
        aliases = decode_aliases(model, execute(client, read_aliases(keys, model)))
        for manifest_or_problem in _select(store, aliases):
            if isinstance(manifest_or_problem, Publication):
                yield manifest_or_problem
            else:
                yield _publish(client, keys, manifest_or_problem)


def _publish(client: redis.Redis, keys: Keys, manifest: Manifest) -> Publication:
    problem = ""
    try:
        publish_contract(client, keys, manifest.contract)
    except redis.ResponseError as error:
        if not is_wrong_type(error):
            raise
        problem = f"a key of another program has the name of ours: {error}"
    return Publication(model=manifest.name, version=manifest.version, problem=problem)


def _select(store: Store, aliases: Aliases) -> Iterator[Manifest | Publication]:
    """Yield the manifests to publish, and the problems of versions that an alias names and that must not serve."""
    for version in sorted(aliases.versions, key=version_order):
        try:
            yield store.read_manifest(aliases.model, version)
        except (ModelError, UnknownModel) as error:
            yield Publication(model=aliases.model, version=version, problem=str(error))
    if aliases.serving is None:
        yield _read_newest(store, aliases.model)


def _read_newest(store: Store, model: str) -> Manifest | Publication:
    """Return the manifest of the newest version that may serve, as a worker without a production alias would."""
    problem = f"{model} has no version"
    for version in reversed(store.versions(model)):
        try:
            return store.read_manifest(model, version)
        except ModelError as error:
            problem = str(error)
    return Publication(model=model, version=None, problem=problem)
