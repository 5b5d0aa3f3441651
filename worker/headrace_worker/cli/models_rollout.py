"""`headrace models promote`, `rollback`, `aliases` and `history`: which version serves, and who said so."""

from __future__ import annotations

import contextlib
import getpass
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from headrace.catalog.aliases import CANARY, PRODUCTION, SHADOW
from headrace.cli import options
from headrace_worker.cli import store as stores

if TYPE_CHECKING:
    from headrace_worker.rollout.promotion import Promoter, Promotion, RolloutStatus

_SECONDS = 60.0


class _Percent(click.ParamType[float]):
    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """A part from 0 to 1, out of a percentage: `10%`, `0.5%`."""
        try:
            number = float(str(value).removesuffix("%")) / 100
        except ValueError:
            number = -1.0
        if not str(value).endswith("%") or not 0 < number <= 1:
            self.fail("must be a percentage above 0% and up to 100%, such as 10%", param, ctx)
        return number


_model = click.argument("model")
_why = click.option("--why", metavar="TEXT", default="", help="A reason, for the history.")


@contextlib.contextmanager
def promoter(store: str | None, url: str | None) -> Iterator[Promoter]:
    """What moves aliases, at the store and the Redis a command was pointed at."""
    import msgspec

    from headrace.connection.connect import connect
    from headrace.connection.errors import translate_errors
    from headrace.wire.keys import Keys
    from headrace_worker.rollout.promotion import Promoter

    settings = stores.settings(store)
    if url:
        settings = msgspec.structs.replace(settings, redis_url=url)
    with translate_errors(settings), connect(settings) as client:
        yield Promoter(
            client,
            Keys(settings.key_prefix),
            stores.opened(store),
            by=_whoever(),
            max_bytes=settings.max_model_bytes,
        )


def _whoever() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user often has no name
        user = "somebody"
    return f"{user}@{socket.gethostname()}"


@click.command()
@_model
@click.argument("version")
@click.option("--to", metavar="ALIAS", help="The alias that is to point to VERSION.  [production]")
@click.option("--canary", type=_Percent(), metavar="PERCENT", help="Try VERSION on this part of the jobs: 10%.")
@click.option("--shadow", is_flag=True, help="Run VERSION beside the one that answers, and compare.")
@click.option("--force", is_flag=True, help="Also where VERSION breaks producers.")
@click.option(
    "--wait", type=options.SECONDS, default=_SECONDS, show_default=True, help="For workers to load it, at most."
)
@click.option("--no-wait", is_flag=True, help="Move the alias at once: workers load VERSION meanwhile.")
@_why
@stores.option
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
    why: str,
    store: str | None,
    url: str | None,
    as_json: bool,
) -> None:
    """Let jobs of MODEL run on VERSION, once every worker that serves the model has loaded and proven it.

    Nothing changes where a worker refuses VERSION, or where it breaks producers and --force is not given.
    """
    if sum((to is not None, canary is not None, shadow)) > 1:
        raise click.UsageError("--to, --canary and --shadow exclude each other")
    alias = SHADOW if shadow else CANARY if canary is not None else to or PRODUCTION
    told: list[RolloutStatus] = []

    def tell(said: RolloutStatus) -> None:
        if said.pending and (not told or told[-1].pending != said.pending):
            click.echo(f"waiting for {', '.join(said.pending)} to load {model}@{version}", err=True)
        told.append(said)

    with promoter(store, url) as moving:
        done = moving.promote(
            model,
            version,
            alias=alias,
            share=canary,
            reason=why,
            force=force,
            wait=0 if no_wait else wait,
            on_status=tell,
        )
    if as_json:
        options.print_json(done)
        return
    for change in done.changes:
        options.print_line(f"{'breaking' if change.breaking else '':8}  {change.text}")
    click.echo(_described(done), err=True)
    if not done.workers:
        click.echo(
            "not waited for workers: they load it within seconds"
            if no_wait
            else f"no worker serves {model} now; the next to start will serve this version",
            err=True,
        )


@click.command()
@_model
@click.option("--alias", default=PRODUCTION, show_default=True, help="Which; a canary or a shadow is taken away.")
@_why
@stores.option
@options.url
@options.as_json
def rollback(*, model: str, alias: str, why: str, store: str | None, url: str | None, as_json: bool) -> None:
    """Let an alias of MODEL point to the version it pointed to before. At once: waits for no worker."""
    with promoter(store, url) as moving:
        done = moving.rollback(model, alias=alias, reason=why)
    if as_json:
        options.print_json(done)
    else:
        click.echo(_described(done), err=True)


def _described(done: Promotion) -> str:
    if done.version is None:
        return f"{done.model} has no {done.alias} any more; it was {done.model}@{done.former}"
    share = f", with {done.share:.4g} of the jobs" if done.share is not None else ""
    former = f" (was {done.model}@{done.former})" if done.former else ""
    return f"{done.alias} of {done.model} is {done.model}@{done.version}{share}{former}"


@click.command("aliases")
@_model
@stores.option
@options.url
@options.as_json
def aliases_(*, model: str, store: str | None, url: str | None, as_json: bool) -> None:
    """List the aliases of MODEL: the version each points to, the workers that have it, and why some will not."""
    with promoter(store, url) as moving:
        found = moving.aliases(model).by_name
        if not found:
            moving.check_model_exists(model)
        said = {name: moving.status(model, alias.version) for name, alias in found.items()}
    if as_json:
        for name, alias in sorted(found.items()):
            options.print_json(
                {
                    "alias": name,
                    "version": alias.version,
                    "share": alias.share,
                    "loaded_by": said[name].ready,
                    "not_yet": said[name].pending,
                    "refused": said[name].refused,
                }
            )
        return
    if not found:
        click.echo(f"{options.printable(model)} has no aliases: its newest version serves", err=True)
        return
    rows = [
        (
            name,
            f"{model}@{alias.version}",
            f"{alias.share:.4%}".rstrip("0%").rstrip(".") + "%" if alias.share is not None else "",
            _workers(said[name]),
        )
        for name, alias in sorted(found.items())
    ]
    for line in options.table([("ALIAS", "VERSION", "SHARE", "LOADED BY"), *rows], right={2}):
        options.print_line(line)
    for name, one in sorted(said.items()):
        for worker, why in one.refused.items():
            options.print_line(f"{name} is refused by {worker}: {options.printable(why)}")


def _workers(said: RolloutStatus) -> str:
    of = len(said.ready) + len(said.pending) + len(said.refused)
    return f"{len(said.ready)} of {of} worker{'' if of == 1 else 's'}" if of else "no worker"


@click.command()
@_model
@stores.option
@options.url
@options.as_json
def history(*, model: str, store: str | None, url: str | None, as_json: bool) -> None:
    """List the moves of MODEL's aliases, the newest first: when, who, from where to where, and why."""
    with promoter(store, url) as moving:
        moves = moving.history(model)
        if not moves:
            moving.check_model_exists(model)
    if as_json:
        for move in moves:
            options.print_json(move)
        return
    if not moves:
        click.echo(f"no alias of {options.printable(model)} was ever moved", err=True)
        return
    rows = [
        (
            f"{datetime.fromtimestamp(move.at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}",
            move.alias,
            move.former or "-",
            move.version or "-",
            f"{move.share:.4g}" if move.share is not None else "",
            "rollback" if move.rollback else "",
            options.printable(move.by),
            options.printable(move.reason),
        )
        for move in moves
    ]
    titles = ("WHEN (UTC)", "ALIAS", "FROM", "TO", "SHARE", "", "BY", "WHY")
    for line in options.table([titles, *rows], right={2, 3, 4}):
        options.print_line(line)
