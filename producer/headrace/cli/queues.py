"""`headrace queues`: print the depth of each queue, pause and resume models."""

from __future__ import annotations

from functools import partial

import click
import msgspec

from headrace.cli import options
from headrace.client.common import resolve_settings
from headrace.connection.commands import execute, run
from headrace.connection.connect import connect
from headrace.connection.errors import translate_errors
from headrace.inspection.queues import QueueDepth, read_queues
from headrace.inspection.unread_lists import UnreadList, find_unread_lists
from headrace.settings import Settings
from headrace.wire.keys import PRIORITY_STEPS, Keys


@click.group(invoke_without_command=True)
@options.as_json
@options.url
@click.pass_context
def queues(ctx: click.Context, /, *, as_json: bool, url: str | None) -> None:
    """Print how many jobs of each model wait, by priority (P0 is claimed first) and in all.

    ISOLATED jobs run before all others, each alone, as their process or worker was lost. WAITING is what a worker
    could claim now. DELAYED jobs are not due yet. LEASED jobs are with a worker. Jobs of a PAUSED model wait
    until it is resumed.

    Lists with jobs that no worker reads are named on standard error, for instance after a slip in a queue's name.
    """
    if ctx.invoked_subcommand is not None:
        if as_json or url is not None:
            raise click.UsageError(f"write the options behind `{ctx.invoked_subcommand}`", ctx)
        return
    depths, unread = _read(resolve_settings(url, None))
    for unread_list in unread:
        click.echo(str(unread_list), err=True)
    if as_json:
        for depth in depths:
            options.print_json({**msgspec.to_builtins(depth), "waiting": depth.waiting})
        return
    if not depths:
        click.echo("no model has a queue yet: a worker that serves a model publishes it", err=True)
        return
    priorities = [f"P{step}" for step in PRIORITY_STEPS]
    any_paused = any(depth.paused for depth in depths)
    header = ["QUEUE", "MODEL", *priorities, "ISOLATED", "WAITING", "DELAYED", "LEASED"]
    rows = [[*header, "PAUSED"] if any_paused else header]
    for depth in depths:
        counts = (*depth.by_priority.values(), depth.isolated, depth.waiting, depth.delayed, depth.leased)
        paused = [options.escape_unprintable(str(depth.paused or "-"))] if any_paused else []
        rows.append([depth.queue, depth.model, *map(str, counts), *paused])
    for line in options.format_table(rows, right=range(2, len(header))):
        options.print_line(line)


@queues.command()
@click.argument("model")
@click.option("--reason", default="", metavar="TEXT", help="The reason, for everybody who looks at the queue.")
@options.url
def pause(*, model: str, reason: str, url: str | None) -> None:
    """Pause MODEL: within about a second, no worker claims a job of it.

    Jobs are accepted and wait; jobs that a worker has claimed finish. The pause stays in Redis until
    `headrace queues resume`.
    """
    with options.open_client(url) as client:
        click.echo(f"{model} is {options.escape_unprintable(str(client.pause(model, reason=reason)))}", err=True)


@queues.command()
@click.argument("model")
@options.url
def resume(*, model: str, url: str | None) -> None:
    """Resume MODEL: workers claim its jobs again."""
    with options.open_client(url) as client:
        click.echo(f"{model} {'is resumed' if client.resume(model) else 'was not paused'}", err=True)


def _read(settings: Settings) -> tuple[list[QueueDepth], list[UnreadList]]:
    keys = Keys(settings.key_prefix)
    with translate_errors(settings), connect(settings) as client:
        ask = partial(execute, client)
        return run(ask, read_queues(keys)), run(ask, find_unread_lists(keys)) or []
