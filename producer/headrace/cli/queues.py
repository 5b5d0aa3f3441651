"""`headrace queues`."""

from __future__ import annotations

import click
import msgspec

from headrace.cli import options
from headrace.wire.keys import PRIORITY_STEPS


@click.command()
@options.as_json
@options.url
def queues(*, as_json: bool, url: str | None) -> None:
    """Show how many jobs wait for each model, by priority (0 is taken first) and in all.

    Beside them: jobs that were lost with what ran them and run AGAIN before all others, jobs whose time has not
    come, and jobs a worker has taken.
    """
    with options.open_client(url) as client:
        depths = client.queues()
    if as_json:
        for depth in depths:
            options.print_json({**msgspec.to_builtins(depth), "waiting": depth.waiting})
        return
    if not depths:
        click.echo("no model has a queue yet: a worker that serves one publishes it", err=True)
        return
    head = ["QUEUE", "MODEL", *(f"P{step}" for step in PRIORITY_STEPS), "AGAIN", "WAITING", "DELAYED", "LEASED"]
    rows = [head]
    for depth in depths:
        numbers = (*depth.by_priority.values(), depth.isolated, depth.waiting, depth.delayed, depth.leased)
        rows.append([depth.queue, depth.model, *map(str, numbers)])
    for line in options.table(rows, right=range(2, len(head))):
        options.print_line(line)
