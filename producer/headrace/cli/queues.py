"""`headrace queues`."""

from __future__ import annotations

import click
import msgspec

from headrace.cli import options
from headrace.queues import PRIORITY_STEPS


@click.command()
@options.as_json
@options.url
def queues(*, as_json: bool, url: str | None) -> None:
    """Show how many jobs wait for each model, by priority (0 is taken first) and in all."""
    with options.connect(url) as client:
        depths = client.queues()
    if as_json:
        for depth in depths:
            options.print_json({**msgspec.to_builtins(depth), "waiting": depth.waiting})
        return
    if not depths:
        click.echo("no model has a queue yet: a worker that serves one publishes it", err=True)
        return
    table = [["QUEUE", "MODEL", *(f"P{step}" for step in PRIORITY_STEPS), "WAITING"]]
    for depth in depths:
        table.append([depth.queue, depth.model, *map(str, depth.by_priority.values()), str(depth.waiting)])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        words = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
        numbers = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        options.print_line("  ".join(words + numbers))
