"""`headrace queues`: print the depth of each queue, pause, resume and purge queues."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING

import click

from headrace.cli import options
from headrace.cli.command import group
from headrace.cli.commands import ERROR
from headrace.cli.json_objects import Queue
from headrace.cli.tables import escape_unprintable, print_table
from headrace.client.common import resolve_settings
from headrace.connection.commands import execute, run
from headrace.connection.connect import connect
from headrace.connection.errors import translate_errors
from headrace.inspection.queues import QueueDepth, read_queues
from headrace.inspection.unread_lists import UnreadList, find_unread_lists
from headrace.settings import Settings
from headrace.status_line import StatusLine
from headrace.text import plural
from headrace.wire.keys import Keys
from headrace.wire.queues import PRIORITY_STEPS, queue_name

if TYPE_CHECKING:
    from headrace.client import Client
    from headrace.results.purge import PurgeResult


#: The columns that may be left out on a narrow terminal, by number; the greatest value is left out first.
_DROP_ORDER = {1: 10, 3: 9, 4: 8, 5: 7, 2: 6, 6: 5, 9: 4, 8: 3, 10: 2}


@group(
    examples=["headrace queues", "headrace queues pause churn --reason 'a bad column'"],
    invoke_without_command=True,
)
@options.as_json
@options.url
@click.pass_context
def queues(ctx: click.Context, /, *, as_json: bool, url: str | None) -> None:
    """Print how many jobs of each model wait, by priority (P0 is claimed first) and in all.

    ISOLATED jobs run before all others, each alone, as their process or worker was lost. WAITING is what a worker
    could claim now. DELAYED jobs are not due yet, DUE jobs are about to return to their queue. LEASED jobs are
    with a worker. BACKLOG is the jobs that want a worker: WAITING, DUE and LEASED. Jobs of a PAUSED model wait
    until it is resumed.

    The queue of a model's bulk runs, such as bulk.churn, is listed while it holds chunks of tables.

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
            options.print_json(Queue.from_depth(depth))
        return
    if not depths:
        click.echo("no model has a queue yet: a worker that serves a model publishes it", err=True)
        return
    priorities = [f"P{step}" for step in PRIORITY_STEPS]
    any_paused = any(depth.paused for depth in depths)
    header = ["QUEUE", "MODEL", *priorities, "ISOLATED", "WAITING", "DELAYED", "DUE", "LEASED", "BACKLOG"]
    rows = [[*header, "PAUSED"] if any_paused else header]
    for depth in depths:
        counts = [*depth.by_priority.values(), depth.isolated, depth.waiting]
        counts += [depth.delayed, depth.due, depth.leased, depth.backlog]
        paused = [escape_unprintable(str(depth.paused or "-"))] if any_paused else []
        rows.append([depth.queue, depth.model, *map(str, counts), *paused])
    print_table(rows, right=range(2, len(header)), drops=_DROP_ORDER, texts={len(header)})


@queues.command(examples=["headrace queues pause churn --reason 'a bad column'"])
@options.model
@click.option("--reason", default="", metavar="TEXT", help="The reason, for everybody who looks at the queue.")
@options.url
def pause(*, model: str, reason: str, url: str | None) -> None:
    """Pause MODEL: within about a second, no worker claims a job of it.

    Jobs are accepted and wait; jobs that a worker has claimed finish. The pause stays in Redis until
    `headrace queues resume`.
    """
    with options.open_client(url) as client:
        click.echo(f"{model} is {escape_unprintable(str(client.pause(model, reason=reason)))}", err=True)


@queues.command(examples=["headrace queues resume churn"])
@options.model
@options.url
def resume(*, model: str, url: str | None) -> None:
    """Resume MODEL: workers claim its jobs again."""
    with options.open_client(url) as client:
        click.echo(f"{model} {'is resumed' if client.resume(model) else 'was not paused'}", err=True)


@queues.command(examples=["headrace queues purge churn --yes"])
@options.model
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@options.as_json
@options.url
@click.pass_context
def purge(ctx: click.Context, /, model: str, *, yes: bool, as_json: bool, url: str | None) -> None:
    """Empty the queue of MODEL: every waiting or delayed job ends as cancelled.

    Jobs that a worker has claimed finish. Pause the model before, if they must not run again after an error.
    """
    with options.open_client(url) as client:
        if not yes:
            _confirm_purge(ctx, client, model)
        status_line = StatusLine(sys.stderr, terminal=sys.stderr.isatty() and os.environ.get("TERM") != "dumb")

        def show_progress(result: PurgeResult) -> None:
            if status_line.elapsed_if_due() is not None:
                status_line.show(lambda width: _format_purge(result)[:width])

        try:
            result = client.purge_queue(model, on_progress=show_progress)
        finally:
            status_line.close()
    if as_json:
        options.print_json(result)
    click.echo(_format_purge(result), err=True)


def _confirm_purge(ctx: click.Context, client: Client, model: str) -> None:
    """Ask whether the jobs of the model shall be cancelled; exit if not."""
    queue = queue_name(model)
    jobs = sum(depth.waiting + depth.due + depth.delayed for depth in client.queues() if depth.queue == queue)
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError(
            f"{plural(jobs, 'job')} would be cancelled; without a terminal to confirm on, pass --yes", ctx
        )
    if not click.confirm(f"{plural(jobs, 'job')} of {model} will be cancelled. Continue?", err=True):
        click.echo("nothing was cancelled", err=True)
        ctx.exit(ERROR)


def _format_purge(result: PurgeResult) -> str:
    text = f"{plural(result.cancelled, 'job')} cancelled"
    if result.removed:
        text += f", {plural(result.removed, 'message')} removed of jobs with an outcome, or without an id"
    return text


def _read(settings: Settings) -> tuple[list[QueueDepth], list[UnreadList]]:
    keys = Keys(settings.key_prefix)
    with translate_errors(settings), connect(settings) as client:
        ask = partial(execute, client)
        return run(ask, read_queues(keys)), run(ask, find_unread_lists(keys)) or []
