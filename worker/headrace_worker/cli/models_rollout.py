"""The commands `headrace models promote`, `rollback`, `aliases` and `history`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import click
import msgspec

from headrace.catalog.aliases import CANARY, PRODUCTION, SHADOW
from headrace.cli import options
from headrace.cli.command import command
from headrace.cli.completion import complete_aliases, complete_versions
from headrace.cli.tables import escape_unprintable, print_table
from headrace.clock import to_unix_ms, utc_now
from headrace.text import format_age
from headrace_worker.cli.store_options import store_option, worker_settings

if TYPE_CHECKING:
    from headrace_worker.rollout.alias_moves import RolloutStatus
    from headrace_worker.rollout.promotion import Promoter, Promotion

_WAIT_SECONDS = 60.0


class _Percent(click.ParamType[float]):
    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Convert a percentage such as `10%` to a share from 0 to 1."""
        try:
            share = float(str(value).removesuffix("%")) / 100
        except ValueError:
            share = -1.0
        if not str(value).endswith("%") or not 0 < share <= 1:
            self.fail("must be a percentage above 0% and up to 100%, such as 10%", param, ctx)
        return share


_model = options.model
_reason = click.option("--reason", metavar="TEXT", default="", help="A reason for the history.")


def open_promoter(store: str | None, url: str | None) -> AbstractContextManager[Promoter]:
    """Open a promoter on the store and the Redis of a command's options."""
    from headrace_worker.rollout.opening import open_promoter

    return open_promoter(worker_settings(store, url))


@command(
    examples=[
        "headrace models promote churn 4 --reason 'new prices'",
        "headrace models promote churn 4 --canary 10%",
    ]
)
@_model
@click.argument("version", shell_complete=complete_versions)
@click.option(
    "--to", metavar="ALIAS", shell_complete=complete_aliases, help="The alias to set to VERSION.  [production]"
)
@click.option("--canary", type=_Percent(), metavar="PERCENT", help="Run VERSION for this share of the jobs: 10%.")
@click.option("--shadow", is_flag=True, help="Run VERSION beside production without answering, and compare.")
@click.option("--force", is_flag=True, help="Promote VERSION even if it breaks producers.")
@click.option(
    "--wait",
    type=options.SECONDS,
    default=_WAIT_SECONDS,
    show_default=True,
    help="Seconds to wait for workers to load VERSION.",
)
@click.option("--no-wait", is_flag=True, help="Set the alias at once; workers load VERSION afterwards.")
@_reason
@store_option
@options.url
@options.as_json
def promote(
    *,
    model: str,
    version: str,
    to: str | None,
    canary: float | None,
    shadow: bool,
    force: bool,
    wait: float,
    no_wait: bool,
    reason: str,
    store: str | None,
    url: str | None,
    as_json: bool,
) -> None:
    """Set an alias of MODEL to VERSION, once every worker that serves the model has loaded and tested VERSION.

    Changes nothing if a worker refuses VERSION, or if VERSION breaks producers, except with --force.
    """
    if sum((to is not None, canary is not None, shadow)) > 1:
        raise click.UsageError("--to, --canary and --shadow exclude each other")
    alias = SHADOW if shadow else CANARY if canary is not None else to or PRODUCTION
    printed: tuple[str, ...] = ()

    def print_pending(status: RolloutStatus) -> None:
        nonlocal printed
        if status.pending and status.pending != printed:
            click.echo(f"waiting for {', '.join(status.pending)} to load {model}@{version}", err=True)
        printed = status.pending

    with open_promoter(store, url) as promoter:
        promotion = promoter.promote(
            model,
            version,
            alias=alias,
            share=canary,
            reason=reason,
            force=force,
            wait=0 if no_wait else wait,
            on_status=print_pending,
        )
    if as_json:
        options.print_json(promotion)
        return
    for change in promotion.changes:
        options.print_line(f"{'breaking' if change.breaking else '':8}  {change.text}")
    click.echo(_describe(promotion), err=True)
    if not promotion.workers:
        click.echo(
            "did not wait for workers: they load it within seconds"
            if no_wait
            else f"no worker serves {model} now; the next one to start will serve this version",
            err=True,
        )


@command(examples=["headrace models rollback churn --reason 'slower'"])
@_model
@click.option(
    "--alias",
    default=PRODUCTION,
    shell_complete=complete_aliases,
    show_default=True,
    help="Alias to roll back; a canary or shadow ends.",
)
@_reason
@store_option
@options.url
@options.as_json
def rollback(*, model: str, alias: str, reason: str, store: str | None, url: str | None, as_json: bool) -> None:
    """Set an alias of MODEL back to the version before, at once, without waiting for workers."""
    with open_promoter(store, url) as promoter:
        promotion = promoter.rollback(model, alias=alias, reason=reason)
    if as_json:
        options.print_json(promotion)
    else:
        click.echo(_describe(promotion), err=True)


def _describe(promotion: Promotion) -> str:
    model, alias = promotion.model, promotion.alias
    if promotion.version is None:
        return f"{model} has no {alias} any more; it was {model}@{promotion.former}"
    share = f", with {promotion.share:.4g} of the jobs" if promotion.share is not None else ""
    former = f" (was {model}@{promotion.former})" if promotion.former else ""
    return f"{alias} of {model} is {model}@{promotion.version}{share}{former}"


class ListedAlias(msgspec.Struct, frozen=True, kw_only=True):
    """An alias of a model, and the workers that have loaded its version."""

    alias: str
    version: str
    #: The share of jobs that a canary takes, above 0 and up to 1. Null: no canary.
    share: float | None
    #: Workers that have the version in memory, and workers that have not loaded it yet.
    loaded_by: tuple[str, ...]
    pending: tuple[str, ...]
    #: The reasons of workers that refuse the version, by worker.
    refused: Mapping[str, str]


@command("aliases", examples=["headrace models aliases churn"])
@_model
@store_option
@options.url
@options.as_json
def aliases_(*, model: str, store: str | None, url: str | None, as_json: bool) -> None:
    """List the aliases of MODEL: version, share of jobs, and workers that have loaded or refused the version."""
    with open_promoter(store, url) as promoter:
        aliases = promoter.aliases(model).by_name
        if not aliases:
            promoter.check_model_exists(model)
        statuses = {name: promoter.status(model, alias.version) for name, alias in aliases.items()}
    if as_json:
        for name, alias in sorted(aliases.items()):
            options.print_json(
                ListedAlias(
                    alias=name,
                    version=alias.version,
                    share=alias.share,
                    loaded_by=statuses[name].ready,
                    pending=statuses[name].pending,
                    refused=statuses[name].refused,
                )
            )
        return
    if not aliases:
        click.echo(f"{escape_unprintable(model)} has no aliases: its newest version serves", err=True)
        return
    rows = [
        (
            name,
            f"{model}@{alias.version}",
            f"{alias.share:.4%}".rstrip("0%").rstrip(".") + "%" if alias.share is not None else "",
            _loaded_by(statuses[name]),
        )
        for name, alias in sorted(aliases.items())
    ]
    print_table([("ALIAS", "VERSION", "SHARE", "LOADED BY"), *rows], right={2}, drops={3: 1, 2: 2})
    for name, status in sorted(statuses.items()):
        for worker, reason in status.refused.items():
            options.print_line(f"{name} is refused by {worker}: {escape_unprintable(reason)}")


def _loaded_by(status: RolloutStatus) -> str:
    total = len(status.ready) + len(status.pending) + len(status.refused)
    return f"{len(status.ready)} of {total} worker{'' if total == 1 else 's'}" if total else "no worker"


@command(examples=["headrace models history churn"])
@_model
@store_option
@options.url
@options.as_json
def history(*, model: str, store: str | None, url: str | None, as_json: bool) -> None:
    """List the changes of MODEL's aliases, the newest first: time, versions, user and reason."""
    with open_promoter(store, url) as promoter:
        changes = promoter.history(model)
        if not changes:
            promoter.check_model_exists(model)
    if as_json:
        for change in changes:
            options.print_json(change)
        return
    if not changes:
        click.echo(f"no alias of {escape_unprintable(model)} has been changed yet", err=True)
        return
    now_ms = to_unix_ms(utc_now())
    rows = [
        (
            format_age((now_ms - change.at_ms) / 1000),
            change.alias,
            change.former or "-",
            change.version or "-",
            f"{change.share:.4g}" if change.share is not None else "",
            "rollback" if change.rollback else "",
            escape_unprintable(change.by),
            escape_unprintable(change.reason),
        )
        for change in changes
    ]
    titles = ("AGE", "ALIAS", "FROM", "TO", "SHARE", "", "BY", "REASON")
    print_table([titles, *rows], right={0, 2, 3, 4}, drops={4: 3, 5: 2, 6: 1}, texts={7})
