"""The Models page: versions, aliases, the workers that have loaded a version, and versions that were refused."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.catalog.aliases import CANARY, PRODUCTION, Alias, decode_aliases, is_version, read_aliases
from headrace.catalog.published import decode_model_names, read_model_names
from headrace.catalog.workers import (
    LoadError,
    WorkerStatus,
    decode_loaded,
    decode_refused,
    read_loaded,
    read_refused,
)
from headrace.connection.commands import Command, Operation, Pipeline
from headrace.connection.server_time import READ_SERVER_TIME, decode_server_time
from headrace.wire.keys import Keys
from headrace_worker.dashboard.last_hour import Series
from headrace_worker.dashboard.page import Page
from headrace_worker.dashboard.rollouts import ComparedVersion, read_comparison
from headrace_worker.dashboard.tasks import CHART_FUNCTIONS
from headrace_worker.rollout.canary import CanaryLimits

#: Models on a page.
PAGE_SIZE = 50


class ServedModel(msgspec.Struct, frozen=True, kw_only=True):
    """One model."""

    model: str
    #: Versions whose contract is published, the newest first.
    versions: tuple[str, ...]
    aliases: dict[str, Alias]
    #: Status by worker, of the workers that reported lately.
    loaded: dict[str, WorkerStatus]
    #: Runtime by version, for the versions that a worker has in memory.
    runtimes: dict[str, str]
    #: Load error by version.
    refused: dict[str, LoadError]
    #: Production, canary and shadow with their numbers; none where no version is tried.
    compared: tuple[ComparedVersion, ...] = ()

    @property
    def production(self) -> str | None:
        """The version that runs jobs which name none; None where no version is published."""
        alias = self.aliases.get(PRODUCTION)
        return alias.version if alias else next(iter(self.versions), None)


class ModelPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of models, sorted by name."""

    models: tuple[ServedModel, ...]
    #: Position at which the next page begins; None for the last page.
    next: int | None


def read_page(keys: Keys, start: int, limits: CanaryLimits) -> Operation[ModelPage]:
    """Read a page of the models, sorted by name, from position `start` on."""
    names = decode_model_names((yield read_model_names(keys)))
    models = []
    for name in names[start : start + PAGE_SIZE]:
        models.append((yield from read_model(keys, name, limits)))
    end = start + PAGE_SIZE
    return ModelPage(models=tuple(models), next=end if end < len(names) else None)


def read_model(keys: Keys, model: str, limits: CanaryLimits) -> Operation[ServedModel]:
    """Read one model. `limits` are those of its canary."""
    commands = (
        READ_SERVER_TIME,
        Command(("HKEYS", keys.contracts(model))),
        read_aliases(keys, model),
        read_loaded(keys, model),
        read_refused(keys, model),
    )
    server_time, *replies = yield Pipeline(tuple(command.args for command in commands))
    served = _served_model(model, replies, decode_server_time(server_time))
    compared = yield from read_comparison(keys, model, served.aliases, limits)
    return msgspec.structs.replace(served, compared=compared)


def _served_model(model: str, replies: list[Any], now_ms: int) -> ServedModel:
    # A reply is an error where the Redis user may not read the key: that column stays empty.
    versions, by_alias, loaded, refused = ([] if isinstance(reply, Exception) else reply for reply in replies)
    numbers = [name.decode() for name in versions if is_version(name.decode(errors="replace"))]
    by_worker = decode_loaded(model, loaded, now_ms)
    return ServedModel(
        model=model,
        versions=tuple(sorted(numbers, key=int, reverse=True)),
        aliases=dict(decode_aliases(model, by_alias).by_name),
        loaded=by_worker,
        runtimes={version: name for status in by_worker.values() for version, name in status.runtimes.items()},
        refused=decode_refused(model, refused, now_ms),
    )


class Models(Page):
    """The models that have a contract."""

    async def get(self) -> None:
        """Show a page of models."""
        keys, start = self.application.session.keys, self.query_number("start")
        content = await self.run_operation(read_page(keys, start, self.application.canary_limits))
        hours = {model.model: self._read_hours(model) for model in content.models}
        self.answer("models.html", content, hours=hours, with_depth=False, **CHART_FUNCTIONS)

    def _read_hours(self, model: ServedModel) -> list[tuple[str, str, Series]]:
        """Return the versions active in the last hour, with their aliases: production first, then the canary."""
        last_hour, rows = self.application.last_hour, []
        for version in last_hour.versions(model.model):
            names = [name for name, alias in model.aliases.items() if alias.version == version]
            if version == model.production and PRODUCTION not in names:
                names.append(PRODUCTION)
            rank = 0 if PRODUCTION in names else 1 if CANARY in names else 2
            rows.append((rank, version, ", ".join(sorted(names)), last_hour.read(model.model, version)))
        return [row[1:] for row in sorted(rows, key=lambda row: row[0])]
