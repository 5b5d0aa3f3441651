"""`headrace queues`: print the depth of each queue."""

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


@click.command()
@options.as_json
@options.url
def queues(*, as_json: bool, url: str | None) -> None:
    """Print how many jobs of each model wait, by priority (P0 is claimed first) and in all.

    ISOLATED jobs run before all others, each alone, as their process or worker was lost. WAITING is what a worker
    could claim now. DELAYED jobs are not due yet. LEASED jobs are with a worker.

    Lists with jobs that no worker reads are named on standard error, for instance after a slip in a queue's name.
    """
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
    header = ["QUEUE", "MODEL", *priorities, "ISOLATED", "WAITING", "DELAYED", "LEASED"]
    rows = [header]
    for depth in depths:
        counts = (*depth.by_priority.values(), depth.isolated, depth.waiting, depth.delayed, depth.leased)
        rows.append([depth.queue, depth.model, *map(str, counts)])
    for line in options.format_table(rows, right=range(2, len(header))):
        options.print_line(line)


def _read(settings: Settings) -> tuple[list[QueueDepth], list[UnreadList]]:
    keys = Keys(settings.key_prefix)
    with translate_errors(settings), connect(settings) as client:
        ask = partial(execute, client)
        return run(ask, read_queues(keys)), run(ask, find_unread_lists(keys)) or []
