"""The routing of a model's jobs to versions within one worker. Its main process sends it with each claim."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from headrace.catalog.aliases import PRODUCTION, Alias, Aliases


class Route(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The versions that jobs of one model run on in one worker.

    They may differ from the aliases in Redis: if a version must not serve, the alias's former version continues.
    """

    model: str
    aliases: Mapping[str, Alias] = {}
    #: The version for jobs without one if there is no production alias; else None.
    newest: str | None = None
    #: The versions that the main process has in memory or is loading. New pool processes will have them.
    ready: tuple[str, ...] = ()

    def resolve(self, requested: str | None, job_id: str) -> str | None:
        """Return the version that a job runs on, a number as text; None if nothing serves.

        `requested` is the version or alias the job names, None for none. Raises UnknownModel for an unknown alias.
        """
        return Aliases(self.model, self.aliases).resolve(requested, job_id) or self.newest

    @property
    def default(self) -> str | None:
        """The version for jobs that name none, apart from the canary's share of them. None if nothing serves."""
        production = self.aliases.get(PRODUCTION)
        return production.version if production is not None else self.newest

    @property
    def versions(self) -> set[str]:
        """All versions that jobs may run on."""
        return {alias.version for alias in self.aliases.values()} | ({self.newest} if self.newest else set())
