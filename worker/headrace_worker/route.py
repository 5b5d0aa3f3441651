"""Where a worker's jobs of one model go: its main process follows the aliases, and each claim tells the pool."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from headrace.catalog.aliases import PRODUCTION, Alias, Aliases


class Route(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The versions that jobs of one model run on in one worker.

    Not always where the aliases point in Redis: where a version is not fit to serve, the former one serves on.
    """

    model: str
    aliases: Mapping[str, Alias] = {}
    #: What a job that names nothing runs on where there is no production alias; None where there is.
    newest: str | None = None
    #: The versions the main process has in memory or is about to have: its pool processes will have them too.
    ready: tuple[str, ...] = ()

    def resolve(self, requested: str | None, job_id: str) -> str | None:
        """The version a job runs on: a number as text. None where nothing serves. Raises UnknownModel."""
        return Aliases(self.model, self.aliases).resolve(requested, job_id) or self.newest

    @property
    def default(self) -> str | None:
        """The version of jobs that name nothing, but for what the canary takes of them."""
        production = self.aliases.get(PRODUCTION)
        return production.version if production is not None else self.newest

    @property
    def versions(self) -> set[str]:
        """All versions that jobs may be sent to by it."""
        return {alias.version for alias in self.aliases.values()} | ({self.newest} if self.newest else set())
