"""The state of a model in Redis: its contract, versions, aliases, workers and queue."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from redis.exceptions import NoPermissionError, ResponseError

from headrace.catalog.aliases import Aliases, decode_aliases, read_aliases
from headrace.catalog.contract import Contract
from headrace.catalog.published import ContractCache, version_order
from headrace.catalog.workers import decode_loaded, read_loaded
from headrace.connection.commands import Command, Operation, Pipeline
from headrace.connection.server_time import READ_SERVER_TIME, decode_server_time
from headrace.inspection.locate import is_not_permitted
from headrace.inspection.queues import QueueDepth, measure_queues
from headrace.wire.keys import Keys
from headrace.wire.names import check_model_name, split_version
from headrace.wire.queues import queue_name


class ModelState(msgspec.Struct, frozen=True, kw_only=True):
    """A model at one moment."""

    #: The contract of the version that was asked for.
    contract: Contract
    #: The versions with a contract, the oldest first.
    versions: list[str]
    aliases: Aliases
    #: True if a worker has the version in memory; None where the Redis user may not read the workers' statuses.
    is_loaded: bool | None
    #: The depth of its queue; None where the Redis user may not measure it.
    queue: QueueDepth | None

    def document(self) -> dict[str, Any]:
        """Return the model as JSON."""
        contract = msgspec.to_builtins(self.contract)
        document: dict[str, Any] = {
            "name": self.contract.model,
            "ready": self.is_loaded is not False,
            "version": self.contract.version,
            "versions": self.versions,
            "aliases": {name: msgspec.to_builtins(alias) for name, alias in self.aliases.by_name.items()},
            "methods": list(self.contract.methods),
            "contract": {"input": contract["input"], "methods": contract["methods"]},
        }
        if self.queue is not None:
            queue = self.queue
            document["queue"] = {"waiting": queue.waiting, "delayed": queue.delayed, "running": queue.leased}
            document["paused"] = queue.paused is not None
        return document


def read_version(
    keys: Keys, contracts: ContractCache, name: str, now: datetime
) -> Operation[tuple[Contract, bool | None]]:
    """Read the contract of a model, `churn` or `churn@7`, and whether a worker has that version in memory.

    None where the Redis user may not read the statuses of workers. Raises InvalidInput (UnknownModel).
    """
    model, version = split_version(name)
    contract = yield from contracts.resolve(check_model_name(model), version, now)
    loaded, server_time = yield Pipeline((read_loaded(keys, model), READ_SERVER_TIME))
    if isinstance(loaded, NoPermissionError):
        return contract, None
    statuses = decode_loaded(model, loaded, decode_server_time(server_time))
    return contract, any(contract.version in status.versions for status in statuses.values())


def read_model(keys: Keys, contracts: ContractCache, name: str, now: datetime) -> Operation[ModelState]:
    """Read the state of a model, `churn` or `churn@7`. Raises InvalidInput (UnknownModel)."""
    contract, is_loaded = yield from read_version(keys, contracts, name, now)
    model = contract.model
    fields = yield Command(("HKEYS", keys.contracts(model)))
    aliases = decode_aliases(model, (yield read_aliases(keys, model)))
    versions = [field.decode(errors="replace") for field in fields if field != b"latest"]
    depth: QueueDepth | None = None
    try:
        (depth,) = yield from measure_queues(keys, [queue_name(model)])
    except ResponseError as error:
        if not is_not_permitted(error):
            raise
    return ModelState(
        contract=contract,
        versions=sorted(versions, key=version_order),
        aliases=aliases,
        is_loaded=is_loaded,
        queue=depth,
    )
