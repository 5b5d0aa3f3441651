"""The page of one model: versions tried beside production, the history of aliases, promote and roll back."""

from __future__ import annotations

from urllib.parse import quote, urlencode

import msgspec

from headrace.catalog.aliases import CANARY, PRODUCTION, SHADOW, AliasChange
from headrace.catalog.published import check_published
from headrace.connection.commands import Operation
from headrace.errors import InvalidInput
from headrace_worker.dashboard.model_page import ServedModel, read_model
from headrace_worker.dashboard.page import Page, log
from headrace_worker.dashboard.rollouts import Author, check_reason, promote, read_changes, roll_back
from headrace_worker.dashboard.tasks import CHART_FUNCTIONS


class ModelDetail(msgspec.Struct, frozen=True, kw_only=True):
    """One model at one moment."""

    served: ServedModel
    #: The last changes of its aliases, the newest first.
    changes: tuple[AliasChange, ...]
    #: The versions that Flower promotes, the newest first: all workers have them in memory.
    promotable: tuple[str, ...]


def find_promotable(served: ServedModel) -> tuple[str, ...]:
    """Return the versions that every worker of a model has in memory, without production's, the newest first."""
    statuses = [set(status.versions) for status in served.loaded.values()]
    common = set.intersection(*statuses) if statuses else set()
    production = served.aliases.get(PRODUCTION)
    common -= {*served.refused, production.version if production else ""}
    return tuple(sorted(common, key=int, reverse=True))


class ModelRollout(Page):
    """One model, with promotion and rollback."""

    async def get(self, model: str) -> None:
        """Show the model. Raises UnknownModel."""
        content = await self.run_operation(self._read(model))
        canary = content.served.aliases.get(CANARY)
        self.answer(
            "model.html",
            content,
            model=content.served,
            canary=canary.version if canary else None,
            ended=(CANARY, SHADOW),
            action=self.query_text("action"),
            **CHART_FUNCTIONS,
        )

    async def post(self, model: str) -> None:
        """Promote a version, or roll an alias back. Raises InvalidInput, UnknownModel, ModelError."""
        self.require_actions()
        session, action = self.application.session, self.get_body_argument("action", "")
        if action not in {"promote", "rollback"}:
            raise InvalidInput("`action` must be promote or rollback")
        author = Author(by=f"{self.user} (Flower)", reason=check_reason(self.get_body_argument("reason", "")))
        expected = self.get_body_argument("expected", "")
        await self.run_operation(check_published(session.keys, model))
        if action == "promote":
            alias, force = PRODUCTION, self.get_body_argument("force", "") == "true"
            version = self.get_body_argument("version", "")
            operation = promote(
                session.keys, session.contracts, model, version, author, expected=expected, force=force
            )
        else:
            alias = self.get_body_argument("alias", "")
            operation = roll_back(session.keys, model, alias, author, expected=expected)
        await self.run_operation(operation)
        log.info("%s of the alias %s of %s by %s: %s", action, alias, model, self.user, author.reason)
        if self.is_json:
            await self.get(model)
        else:
            address = self.reverse_url("model", quote(model, safe=""))
            self.redirect(f"{address}?{urlencode({'action': action})}", status=303)

    def _read(self, model: str) -> Operation[ModelDetail]:
        session = self.application.session
        yield from check_published(session.keys, model)
        served = yield from read_model(session.keys, model, self.application.canary_limits)
        changes = yield from read_changes(session.keys, model)
        return ModelDetail(served=served, changes=changes, promotable=find_promotable(served))
