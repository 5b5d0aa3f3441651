"""Which version each job of a call runs on, and its instances checked against that version's contract.

An alias is resolved here, where the job is enqueued: what the job runs on does not change while it waits, is
delayed or is tried again. A client that does not check (`check=False`) leaves it to the worker that claims.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from headrace.catalog.aliases import is_version
from headrace.catalog.contract import Contract
from headrace.catalog.published import Contracts
from headrace.catalog.validation import check_instances, check_method
from headrace.connection.commands import Operation
from headrace.errors import InvalidInput
from headrace.submit.options import SubmitOptions
from headrace.wire.message import Instance


class VersionGroup(msgspec.Struct, frozen=True):
    """The jobs of a call that run on one version."""

    #: None is the newest the worker has.
    version: str | None
    #: The places of these jobs in the call.
    indexes: Sequence[int]
    #: The instance of each, as it is sent.
    instances: list[Instance]


class Router:
    """The plans of one client to route and check."""

    def __init__(self, contracts: Contracts, *, check: bool) -> None:
        self._contracts = contracts
        self._check = check

    def route(
        self, asked: SubmitOptions, job: str, instances: list[Any], now: datetime
    ) -> Operation[tuple[str | None, list[Instance]]]:
        """The version one job runs on, and its instances. Raises InvalidInput (UnknownModel)."""
        (version,) = yield from self._versions(asked, [job], now)
        return version, (yield from self._checked(asked, version, instances, range(len(instances)), now))

    def route_many(
        self, asked: SubmitOptions, jobs: Sequence[str], instances: list[Any], first: int, now: datetime
    ) -> Operation[list[VersionGroup]]:
        """Jobs of an instance each, by version. Raises InvalidInput, which counts the instances from `first`."""
        versions = yield from self._versions(asked, jobs, now)
        shares: list[VersionGroup] = []
        for version in dict.fromkeys(versions):
            places = [place for place, of in enumerate(versions) if of == version]
            given = instances if len(places) == len(instances) else [instances[place] for place in places]
            numbers = (first + place for place in places)
            shares.append(
                VersionGroup(version, places, (yield from self._checked(asked, version, given, numbers, now)))
            )
        return shares

    def _versions(self, asked: SubmitOptions, jobs: Sequence[str], now: datetime) -> Operation[list[str | None]]:
        if not self._check or (asked.version is not None and is_version(asked.version)):
            return [asked.version] * len(jobs)
        aliases = yield from self._contracts.aliases(asked.model, now.timestamp())
        if asked.version is None and aliases.splits:
            return [aliases.version(None, job) for job in jobs]
        return [aliases.version(asked.version, "")] * len(jobs)

    def _checked(
        self,
        asked: SubmitOptions,
        version: str | None,
        instances: list[Any],
        numbers: Iterable[int],
        now: datetime,
    ) -> Operation[list[Instance]]:
        """The instances as they are sent. A contract out of the cache that refuses is read again first."""
        if not instances:
            raise InvalidInput("a job needs at least one instance; the list is empty")
        if not self._check:
            return instances
        moment, numbers = now.timestamp(), list(numbers)
        contract = yield from self._contracts.get(asked.model, version, moment)
        try:
            return _fit(contract, asked, instances, numbers)
        except InvalidInput:
            if self._contracts.is_fresh(asked.model, version, moment):
                raise
        contract = yield from self._contracts.get(asked.model, version, moment, again=True)
        return _fit(contract, asked, instances, numbers)


def _fit(contract: Contract, asked: SubmitOptions, instances: list[Any], numbers: Iterable[int]) -> list[Instance]:
    check_method(contract, asked.method)
    return check_instances(contract, instances, numbers=numbers)
