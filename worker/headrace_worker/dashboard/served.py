"""What there is to tell of each model: versions, aliases, who has loaded what, and what is refused."""

from __future__ import annotations

import msgspec

from headrace.catalog import aliases, published
from headrace.catalog import workers as loaded
from headrace.catalog.aliases import PRODUCTION, Alias
from headrace.catalog.workers import LoadError, WorkerStatus
from headrace.connection.commands import Command, Operation, Pipeline
from headrace.wire.keys import Keys

#: Models on a page.
PAGE = 50


class ServedModel(msgspec.Struct, frozen=True, kw_only=True):
    """One model."""

    model: str
    #: Versions whose contract is published, the newest first.
    versions: tuple[str, ...]
    aliases: dict[str, Alias]
    #: By worker; of those that live.
    loaded: dict[str, WorkerStatus]
    #: What executes a version, where a worker has it in memory.
    runtimes: dict[str, str]
    #: By version.
    refused: dict[str, LoadError]

    @property
    def production(self) -> str | None:
        """The version that a job without one runs on."""
        alias = self.aliases.get(PRODUCTION)
        return alias.version if alias else next(iter(self.versions), None)


class ModelPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some models, by name."""

    models: tuple[ServedModel, ...]
    #: Where the next page begins; None where this is the last.
    next: int | None


def page(keys: Keys, start: int) -> Operation[ModelPage]:
    """The models from the one at `start` on, by name."""
    names = published.listed((yield published.every(keys)))
    seconds, micros = yield Command(("TIME",))
    now_ms = int(seconds) * 1000 + int(micros) // 1000
    found = []
    for model in names[start : start + PAGE]:
        asked = (
            Command(("HKEYS", keys.contracts(model))),
            aliases.read_command(keys, model),
            loaded.read_loaded(keys, model),
            loaded.read_refused(keys, model),
        )
        replies = yield Pipeline(tuple(one.args for one in asked))
        # What a Redis user may not read is told as nothing.
        versions, named, has, refused = ([] if isinstance(one, Exception) else one for one in replies)
        numbers = [name.decode() for name in versions if aliases.is_version(name.decode(errors="replace"))]
        by_worker = loaded.loaded(has, now_ms)
        found.append(
            ServedModel(
                model=model,
                versions=tuple(sorted(numbers, key=int, reverse=True)),
                aliases=dict(aliases.decoded(model, named).by_name),
                loaded=by_worker,
                runtimes={version: name for one in by_worker.values() for version, name in one.runtimes.items()},
                refused=loaded.refused(refused, now_ms),
            )
        )
    more = start + PAGE
    return ModelPage(models=tuple(found), next=more if more < len(names) else None)
