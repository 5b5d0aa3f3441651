"""The version each job of a call runs on, and the check of its instances against that version's contract.

An alias is resolved here, where the job is enqueued: the version of a job does not change while it waits, is
delayed or is retried. A client that does not check (`check=False`) leaves this to the worker that claims the job.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from headrace.catalog.aliases import is_version
from headrace.catalog.contract import Contract
from headrace.catalog.instance_problems import no_instances
from headrace.catalog.published import ContractCache
from headrace.catalog.validation import check_instances, check_method
from headrace.connection.commands import Operation
from headrace.errors import InvalidInput, UnknownModel
from headrace.submit.options import SubmitOptions
from headrace.wire.columns import Columns
from headrace.wire.message import Instance


class VersionGroup(msgspec.Struct, frozen=True):
    """The jobs of a call that run on one version."""

    #: None is the newest version that the worker has.
    version: str | None
    #: The indexes of these jobs in the call.
    indexes: Sequence[int]
    #: The instance of each job, as it is sent.
    instances: Sequence[Instance]


class Router:
    """The operations that route the jobs of one client and check their instances."""

    def __init__(self, contracts: ContractCache, *, check: bool) -> None:
        self._contracts = contracts
        self._check = check

    def route(
        self, options: SubmitOptions, job: str, instances: Sequence[Any], now: datetime
    ) -> Operation[tuple[str | None, Sequence[Instance]]]:
        """Return the version that one job runs on, and its instances as they are sent.

        Instances in columns are checked by the worker, each row alone. Raises InvalidInput (UnknownModel).
        """
        if (cached := self._route_from_cache(options, job, instances, now)) is not None:
            return cached
        try:
            return (yield from self._route(options, job, instances, now))
        except UnknownModel:
            if not (yield from self._finds_other_aliases(options, now)):
                raise
        return (yield from self._route(options, job, instances, now))

    def _route_from_cache(
        self, options: SubmitOptions, job: str, instances: Sequence[Any], now: datetime
    ) -> tuple[str | None, Sequence[Instance]] | None:
        """Route a job by a contract and aliases of the cache. None if they are not there, or refuse the job."""
        if not self._check or not instances or isinstance(instances, Columns):
            return None
        moment, version = now.timestamp(), options.version
        try:
            if version is None or not is_version(version):
                aliases = self._contracts.cached_aliases(options.model, moment)
                if aliases is None:
                    return None
                version = aliases.resolve(version, job)
            contract = self._contracts.cached(options.model, version, moment)
            return None if contract is None else (version, _check_against(contract, options, instances, None))
        except InvalidInput:
            return None

    def _route(
        self, options: SubmitOptions, job: str, instances: Sequence[Any], now: datetime
    ) -> Operation[tuple[str | None, Sequence[Instance]]]:
        (version,) = yield from self._versions(options, [job], now)
        if isinstance(instances, Columns):
            return version, instances
        numbers = range(len(instances))
        return version, (yield from self._check_instances(options, version, instances, numbers, now))

    def route_many(
        self, options: SubmitOptions, jobs: Sequence[str], instances: list[Any], first: int, now: datetime
    ) -> Operation[list[VersionGroup]]:
        """Group jobs of one instance each by version.

        `first` is the number of the first instance in its call, for errors. Raises InvalidInput (UnknownModel).
        """
        try:
            return (yield from self._route_many(options, jobs, instances, first, now))
        except UnknownModel:
            if not (yield from self._finds_other_aliases(options, now)):
                raise
        return (yield from self._route_many(options, jobs, instances, first, now))

    def _route_many(
        self, options: SubmitOptions, jobs: Sequence[str], instances: list[Any], first: int, now: datetime
    ) -> Operation[list[VersionGroup]]:
        versions = yield from self._versions(options, jobs, now)
        groups: list[VersionGroup] = []
        for version in dict.fromkeys(versions):
            indexes = [index for index, job_version in enumerate(versions) if job_version == version]
            members = instances if len(indexes) == len(instances) else [instances[index] for index in indexes]
            numbers = (first + index for index in indexes)
            checked = yield from self._check_instances(options, version, members, numbers, now)
            groups.append(VersionGroup(version, indexes, checked))
        return groups

    def _finds_other_aliases(self, options: SubmitOptions, now: datetime) -> Operation[bool]:
        """Read the aliases again, for a job whose version is not known. Returns whether they have changed.

        A cached alias may point to a version that is gone, or lack an alias that is new.
        """
        if not self._check or (options.version is not None and is_version(options.version)):
            return False
        cached = yield from self._contracts.read_aliases(options.model, now.timestamp())
        fresh = yield from self._contracts.read_aliases(options.model, now.timestamp(), refresh=True)
        return fresh != cached

    def _versions(self, options: SubmitOptions, jobs: Sequence[str], now: datetime) -> Operation[list[str | None]]:
        if not self._check or (options.version is not None and is_version(options.version)):
            return [options.version] * len(jobs)
        aliases = yield from self._contracts.read_aliases(options.model, now.timestamp())
        if options.version is None and aliases.has_canary:
            return [aliases.resolve(None, job) for job in jobs]
        return [aliases.resolve(options.version, "")] * len(jobs)

    def _check_instances(
        self,
        options: SubmitOptions,
        version: str | None,
        instances: Sequence[Any],
        numbers: Iterable[int],
        now: datetime,
    ) -> Operation[Sequence[Instance]]:
        """Return the instances as they are sent. If a cached contract refuses them, it is read again first."""
        if not instances:
            raise no_instances()
        if not self._check:
            return instances
        moment, numbers = now.timestamp(), list(numbers)
        contract = yield from self._contracts.read(options.model, version, moment)
        try:
            return _check_against(contract, options, instances, numbers)
        except InvalidInput:
            if self._contracts.was_read_at(options.model, version, moment):
                raise
        contract = yield from self._contracts.read(options.model, version, moment, refresh=True)
        return _check_against(contract, options, instances, numbers)


def _check_against(
    contract: Contract, options: SubmitOptions, instances: Sequence[Any], numbers: Iterable[int] | None
) -> list[Instance]:
    check_method(contract, options.method)
    return check_instances(contract, instances, numbers=numbers)
